"""Whether a server computes what the policy computes: its log-probabilities beside the policy's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from papo.rollout.served_policy import ServedPolicy
from papo.rollout.served_prompt import ServedResponse
from papo.types import PromptGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far two policies are apart on the tokens of one of them.

    Attributes:
        by_kind: the largest difference of the log-probabilities of a token, nats, in prompts with pictures and
            in prompts without, where there are such.
        num_tokens: compared.
    """

    by_kind: Mapping[str, float]
    num_tokens: int

    @property
    def largest(self) -> float:
        return max(self.by_kind.values())


@torch.no_grad()
def measure_parity(
    policy: ServedPolicy, groups: Sequence[PromptGroup], responses: Sequence[ServedResponse]
) -> Parity:
    """Scores one response to each prompt, one after another, which bounds memory."""
    by_kind: dict[str, float] = {}
    for group, response in zip(groups, responses, strict=True):
        ids = torch.tensor([response.ids])
        scores = policy.score([group], ids, torch.ones_like(ids, dtype=torch.bool))
        theirs = torch.tensor([response.logprobs], dtype=torch.float64)
        difference = float((scores["image"].logprobs.double().cpu() - theirs).abs().max())
        kind = "prompts without pictures" if group.patches is None else "prompts with pictures"
        # Not max(), which forgets that one is not a number.
        before = by_kind.get(kind, 0.0)
        by_kind[kind] = before if difference <= before else difference
    return Parity(by_kind=by_kind, num_tokens=sum(len(each.ids) for each in responses))
