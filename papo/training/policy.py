"""The policy under training as a Lightning module: what is optimised, saved and restored."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""An optimiser that lacks only its parameters."""


def try_optimizer(make_optimizer: MakeOptimizer) -> torch.optim.Optimizer:
    """Returns an optimiser of one weight that made a step: what it refuses, it refuses before a run.

    Raises:
        Exception: whatever the optimiser raises.
    """
    weight = nn.Parameter(torch.zeros(1))
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


class PolicyModule(LightningModule):
    """pi_theta: the only module whose parameters an optimiser sees.

    Args:
        policy: implements papo.types.Policy.
        make_optimizer: called with the trainable parameters.

    Raises:
        ValueError: no parameter is trainable.
    """

    def __init__(self, *, policy: nn.Module, make_optimizer: MakeOptimizer) -> None:
        super().__init__()
        self.policy: Any = policy
        self.make_optimizer = make_optimizer
        if not any(p.requires_grad for p in policy.parameters()):
            raise ValueError("every parameter of the policy is frozen; there is nothing to train")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = self.make_optimizer(trained)
        for group in optimizer.param_groups:
            step_as_configured([group], group, on_gpu=trained[0].is_cuda)
        return optimizer

    def restore_step(self, groups: Iterable[dict[str, Any]], *, on_gpu: bool) -> None:
        """Has the settings of a checkpoint's optimiser say how this device steps, not the one that saved them."""
        [configured] = try_optimizer(self.make_optimizer).param_groups
        step_as_configured(groups, configured, on_gpu=on_gpu)
