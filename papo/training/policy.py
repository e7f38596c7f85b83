"""The policy under training as a Lightning module: what is optimised, saved and restored."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from papo.training.schedule import CONSTANT, LearningRateSchedule

MakeOptimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]
"""An optimiser that lacks only its parameters, or groups of them."""

WEIGHT_DECAY_OF = ("all", "matrices")


def try_optimizer(make_optimizer: MakeOptimizer) -> torch.optim.Optimizer:
    """Returns an optimiser of one weight that made a step: what it refuses, it refuses before a run.

    Raises:
        Exception: whatever the optimiser raises.
    """
    # A matrix: some take nothing else.
    weight = nn.Parameter(torch.zeros(1, 1))
    optimizer = make_optimizer([weight])
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return optimizer


def is_fused(group: Mapping[str, Any], *, on_gpu: bool) -> bool:
    """Whether a step over these settings is one kernel: on a GPU, unless another way was chosen.

    PyTorch's own choice there (foreach) makes a temporary copy of all weights that are trained. On a CPU nothing
    is chosen, so that weights stay the same to the bit.

    Args:
        group: settings of an optimiser.
        on_gpu: its weights are on a GPU.
    """
    if group.get("fused") is None and group.get("foreach") is None:
        return on_gpu and "fused" in group
    return bool(group.get("fused"))


def step_as_configured(
    groups: Iterable[dict[str, Any]], configured: Mapping[str, Any], *, on_gpu: bool
) -> None:
    """Has an optimiser step as fits this device, whichever one its settings come from.

    Args:
        groups: settings of an optimiser, of a fresh one or of a checkpoint; changed in place.
        configured: settings of one as the run makes it.
        on_gpu: its weights are on a GPU.
    """
    for group in groups:
        if "fused" in group:
            group["fused"] = is_fused(configured, on_gpu=on_gpu) or configured.get("fused")


def check_weight_decay_of(weight_decay_of: object, group: Mapping[str, Any]) -> str:
    """Returns which weights decay.

    Args:
        weight_decay_of: of `WEIGHT_DECAY_OF`.
        group: settings of the optimiser.

    Raises:
        ValueError: another value, or an optimiser without a weight decay.
    """
    if weight_decay_of not in WEIGHT_DECAY_OF:
        raise ValueError(
            f"optimizer.weight_decay_of is one of {', '.join(WEIGHT_DECAY_OF)}; got {weight_decay_of!r}"
        )
    if weight_decay_of != "all" and "weight_decay" not in group:
        raise ValueError(
            "an optimiser without a weight decay lets nothing decay; got optimizer.weight_decay_of="
            f"{weight_decay_of}. Set it to all."
        )
    return str(weight_decay_of)


def decaying(policy: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the trained weights: matrices, and what is spared from a decay: norms, biases and embeddings.

    A head that is tied to the embeddings is one of them.
    """
    embeddings = {id(one.weight) for one in policy.modules() if isinstance(one, nn.Embedding)}
    trained = [p for p in policy.parameters() if p.requires_grad]
    decays = [p.ndim > 1 and id(p) not in embeddings for p in trained]
    return (
        [p for p, is_so in zip(trained, decays, strict=True) if is_so],
        [p for p, is_so in zip(trained, decays, strict=True) if not is_so],
    )


class PolicyModule(LightningModule):
    """pi_theta: the only module whose parameters an optimiser sees.

    Args:
        policy: implements papo.types.Policy.
        make_optimizer: called with the trainable parameters.
        weight_decay_of: `all`, or `matrices` (see `decaying`).
        schedule: of the learning rate.

    Raises:
        ValueError: no parameter is trainable.
    """

    def __init__(
        self,
        *,
        policy: nn.Module,
        make_optimizer: MakeOptimizer,
        weight_decay_of: str = "all",
        schedule: LearningRateSchedule = CONSTANT,
    ) -> None:
        super().__init__()
        self.policy: Any = policy
        self.make_optimizer = make_optimizer
        self.weight_decay_of = weight_decay_of
        self.schedule = schedule
        self._rates: list[float] = []
        if not any(p.requires_grad for p in policy.parameters()):
            raise ValueError("every parameter of the policy is frozen; there is nothing to train")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimiser, its weights in one group or in two.

        Raises:
            ValueError: it does not take weights of their kinds.
        """
        trained: list[Any] = [p for p in self.policy.parameters() if p.requires_grad]
        on_gpu = trained[0].is_cuda
        if self.weight_decay_of == "matrices":
            matrices, others = decaying(self.policy)
            groups: list[dict[str, Any]] = [
                {"params": matrices},
                {"params": others, "weight_decay": 0.0},
            ]
            trained = [group for group in groups if group["params"]]
        try:
            optimizer = self.make_optimizer(trained)
        except ValueError as error:
            raise ValueError(
                f"the optimiser does not take the weights that are trained: {error}. Train adapters "
                "(+model/lora=language), or set optimizer=adamw."
            ) from error
        for group in optimizer.param_groups:
            step_as_configured([group], group, on_gpu=on_gpu)
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        return optimizer

    def set_learning_rate(
        self, groups: Iterable[dict[str, Any]], *, update: int, num_updates: int
    ) -> None:
        """Has the groups of the optimiser make an update with its share of their rates (`LearningRateSchedule`)."""
        share = self.schedule.share(update, num_updates)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = share * rate

    def restore_step(self, groups: Iterable[dict[str, Any]], *, on_gpu: bool) -> None:
        """Has the settings of a checkpoint's optimiser say how this device steps, not the one that saved them."""
        [configured] = try_optimizer(self.make_optimizer).param_groups
        step_as_configured(groups, configured, on_gpu=on_gpu)
