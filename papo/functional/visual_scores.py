"""How visual scores of tokens become factors (VGPO, arXiv:2604.09349)."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papo.functional.credit import min_max, response_means

EPSILON = 1e-8
"""Added to ranges and lengths by VGPO's code."""

SCHEDULES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda time: time,
    "exponential": torch.square,
    "step": lambda time: (time.float() >= 0.5).to(time),  # rounded, the middle token counts
}
"""How compensation grows from the first token of a response, time 0, to its last, time 1."""


def compensated(
    scores: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    strength: float,
    schedule: str,
    start: float,
    share: float,
) -> Float[Tensor, "rollout token"]:
    """Scores times 1 + strength * schedule(time), late in a response and where they are large there.

    Args:
        scores: of each token.
        mask: the tokens that are there.
        strength: at time 1.
        schedule: a key of SCHEDULES.
        start: share of a response behind which a token is late.
        share: of the late tokens, those with the largest scores, that are raised; at least one, and equal ones.
    """
    length, place = mask.sum(1, keepdim=True), torch.arange(mask.shape[1], device=mask.device)
    late = mask & (place >= (length * start).long())
    count = (late.sum(1, keepdim=True).double() * share).long().clamp_min(1)
    least = scores.where(late, -torch.inf).sort(1, descending=True).values.gather(1, count - 1)
    rise = strength * SCHEDULES[schedule](place / (length.to(scores) - 1 + EPSILON))
    return scores * (1 + rise * (late & (scores >= least)))


def token_factors(
    shares: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    least: float,
    most: float,
) -> Float[Tensor, "rollout token"]:
    """1 + share - mean share of the response, cut to [least, most]."""
    return (1 + shares - response_means(shares, mask)[:, None]).clamp(least, most)


def response_factors(
    scores: Float[Tensor, " rollout"], rows: Sequence[slice], least: float, most: float
) -> Float[Tensor, " rollout"]:
    """The same of responses: scores as shares of their block's range, less the mean of the block."""
    column = scores[:, None]
    shares = min_max(column, torch.ones_like(column).bool(), rows=rows, epsilon=EPSILON)[:, 0]
    means = [shares[block].mean().expand(len(shares[block])) for block in rows]
    return (1 + shares - torch.cat(means)).clamp(least, most)
