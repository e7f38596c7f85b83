"""The reference policy: a frozen copy of the initial policy, made only when something reads it."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from papo.types import PromptGroup, TokenScores


class ReferenceModule(LightningModule):
    """pi_ref of the reference KL: never trained, never saved, always the policy the run began with.

    Args:
        policy: the initial policy; copied, so make the reference before the first update and before
            a checkpoint is restored.
    """

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy: Any = deepcopy(policy).eval().requires_grad_(False)
        self.fingerprint = fingerprint(self.policy)

    @torch.no_grad()
    def score(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
    ) -> Float[Tensor, "rollout token"]:
        """log pi_ref(o_t | q, I)."""
        scores: TokenScores = self.policy.score(
            groups, response_ids, response_mask, masked_view=False, full_vocabulary=False
        )
        return scores.logprobs


@torch.no_grad()
def fingerprint(policy: nn.Module) -> str:
    """A hash of all parameters, the same on every device and for every number of threads.

    A checkpoint stores the fingerprint of the initial policy instead of the initial policy.
    """
    digest = hashlib.sha256()
    for name, parameter in policy.named_parameters():
        bits = parameter.detach().contiguous().view(_INTEGERS[parameter.element_size()])
        # An integer sum is exact, so it does not depend on the order of its terms.
        digest.update(f"{name}{tuple(parameter.shape)}{int(bits.sum(dtype=torch.int64))}".encode())
    return digest.hexdigest()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
