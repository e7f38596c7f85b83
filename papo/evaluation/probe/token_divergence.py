"""The perception KL of a response, token by token, as perception_kl.jsonl keeps it."""

from dataclasses import dataclass

from papo.evaluation.scored_response import ScoredResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDivergence(ScoredResponse):
    """The perception KL of one response; one line of perception_kl.jsonl.

    Attributes:
        kl_k3, kl_exact: per token, nats, mean over the masks.
    """

    kl_k3: tuple[float, ...]
    kl_exact: tuple[float, ...]
