"""Lightning's view of a run on several ranks: each has the whole policy, and rank 0 writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from papo.parallel import NoSharding, Ranks, Sharding, shard_of, sharded_like
from papo.training.checkpoint_folder import StoredTensor, Where
from papo.training.checkpoints import read_checkpoint, write_checkpoint_folder


class RanksStrategy(SingleDeviceStrategy):
    """One device per process; what ranks have to say to one another, TrainingModule says itself.

    No wrapper around the policy and no hook in its backward pass (as Lightning's DDP has): ranks may make
    different numbers of passes, of prompts with pictures and without, and add up their gradients once per
    minibatch.

    Args:
        ranks: the processes of the run.
        device: of this process.
    """

    strategy_name = "ranks"

    def __init__(self, *, ranks: Ranks, device: torch.device) -> None:
        super().__init__(device=device)
        self.ranks = ranks
        self.global_rank = ranks.rank
        self.local_rank = ranks.local_rank
        # Where it knew of several, Lightning's handler of SIGTERM would wait for the others inside a signal.
        self.world_size = 1

    @property
    def is_global_zero(self) -> bool:
        return self.ranks.writes

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        self.ranks.wait_for_all()

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        assert src == 0, "rank 0 decides"
        return self.ranks.first(lambda: obj)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        decisions = self.ranks.gather(bool(decision))
        return min(decisions) if all else max(decisions)


class ShardsStrategy(RanksStrategy):
    """Ranks whose weights are in shards: all of them write a checkpoint, a folder, and read it.

    Args:
        ranks: the processes of the run.
        device: as of RanksStrategy.
        sharding: of the weights.
    """

    strategy_name = "shards"

    def __init__(self, *, ranks: Ranks, device: torch.device, sharding: Sharding) -> None:
        super().__init__(ranks=ranks, device=device)
        self.sharding = sharding

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        # What is read goes where the parts of weights and optimiser are.
        return True

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None
    ) -> None:
        path = Path(self.broadcast(str(filepath)))
        write_checkpoint_folder(
            path,
            checkpoint,
            ranks=self.ranks,
            holds_first_copy=self.sharding.holds_first_copy,
        )

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        assert self.lightning_module is not None, "a checkpoint is restored into a module"
        weights = dict(self.lightning_module.named_parameters(remove_duplicate=False))
        [optimizer] = self.optimizers
        trained = [p for group in optimizer.param_groups for p in group["params"]]

        def place(where: Where, stored: StoredTensor) -> torch.Tensor:
            like = _parameter(where, weights, trained)
            # A moment of another shape than its parameter's was not cut as that is.
            if like is None or tuple(like.shape) != stored.shape or shard_of(like) is None:
                return stored.whole()
            return sharded_like(like, stored.read)

        return read_checkpoint(Path(checkpoint_path), place)

    def teardown(self) -> None:
        # As of the base class, but the shards stay where their ranks compute.
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def _parameter(
    where: Where, weights: Mapping[str, torch.nn.Parameter], trained: list[torch.nn.Parameter]
) -> torch.nn.Parameter | None:
    """Whose weight or moment a tensor of a checkpoint is."""
    if where[0] == "state_dict":
        return weights.get(where[1])
    return trained[where[3]] if where[:3] == ("optimizer_states", 0, "state") else None


def strategy_for(
    ranks: Ranks, device: torch.device, sharding: Sharding | NoSharding
) -> RanksStrategy:
    """The strategy of several ranks."""
    if isinstance(sharding, Sharding):
        return ShardsStrategy(ranks=ranks, device=device, sharding=sharding)
    return RanksStrategy(ranks=ranks, device=device)
