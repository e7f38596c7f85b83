"""The reference policy: the policy a run began with, copied only where it cannot be had otherwise."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from papo.training.base_weights import fingerprint
from papo.types import IMAGE, PromptGroup, TokenScores


class ReferenceModule(LightningModule):
    """pi_ref of the reference KL: never trained, never saved, always the policy the run began with.

    A policy with adapters is its own reference while they are switched off; any other is copied.

    Args:
        policy: the initial policy; make the reference before the first update and before a
            checkpoint is restored.
        half: 16 bits that passes run in by autocast; a copy then keeps what they would cast in it, which
            changes no bit of what they compute. None: the copy is as precise as the policy.

    Attributes:
        fingerprint: of the copy, once its weights are read; None without one, where the reference is the
            policy's frozen weights, whose fingerprint every checkpoint has.
    """

    def __init__(self, policy: nn.Module, *, half: torch.dtype | None = None) -> None:
        super().__init__()
        self.is_copy = not getattr(policy, "has_adapters", False)
        self.fingerprint: str | None = None
        if self.is_copy:
            self.copied: Any = deepcopy(policy).eval().requires_grad_(False)
            if getattr(policy, "unread_weights", None) is None:
                self.fingerprint = fingerprint(dict(self.copied.named_parameters()))
            if half is not None:
                # A frozen tower is the policy's own.
                shared = {id(parameter) for parameter in policy.parameters()}
                for parameter in cast_by_passes(self.copied.model):
                    if id(parameter) not in shared:
                        parameter.data = parameter.data.to(half)
        else:
            # In a tuple: as a submodule, the policy would be frozen and moved with its reference.
            self._shared: tuple[Any, ...] = (policy,)

    @property
    def policy(self) -> Any:
        """The policy that is asked."""
        return self.copied if self.is_copy else self._shared[0]

    @torch.no_grad()
    def score(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
    ) -> Float[Tensor, "rollout token"]:
        """log pi_ref(o_t | q, I)."""
        with self._adapters_off():
            scores: TokenScores = self.policy.score(groups, response_ids, response_mask)
        return scores[IMAGE].logprobs

    def _adapters_off(self) -> AbstractContextManager[None]:
        if self.is_copy:
            return nullcontext()
        context: AbstractContextManager[None] = self.policy.reference_context()
        return context


def cast_by_passes(model: Any) -> list[nn.Parameter]:
    """What passes under autocast read in half precision alone: linear layers. Norms, embeddings and the head,
    which is multiplied in float32, are read as they are.
    """
    return [
        parameter
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.weight is not model.lm_head.weight
        for parameter in module.parameters(recurse=False)
    ]
