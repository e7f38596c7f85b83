"""Lightning's view of a run on several ranks: each has the whole policy, and rank 0 writes."""

from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from papo.parallel import Ranks


class RanksStrategy(SingleDeviceStrategy):
    """One device per process; what ranks have to say to one another, PAPOModule says itself.

    No wrapper around the policy and no hook in its backward pass (as Lightning's DDP has): ranks may make
    different numbers of passes, of prompts with pictures and without, and add up their gradients once per
    minibatch.

    Args:
        ranks: the processes of the run.
        accelerator: cpu, gpu or auto, as the setting trainer.accelerator.
    """

    strategy_name = "ranks"

    def __init__(self, *, ranks: Ranks, accelerator: str) -> None:
        on_gpu = accelerator in ("gpu", "cuda") or (
            accelerator == "auto" and torch.cuda.is_available()
        )
        device = torch.device("cuda", ranks.local_rank) if on_gpu else torch.device("cpu")
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
