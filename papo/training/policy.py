"""The policy under training as a Lightning module: what is optimised, saved and restored."""

from collections.abc import Callable, Iterable
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
        return self.make_optimizer(p for p in self.policy.parameters() if p.requires_grad)
