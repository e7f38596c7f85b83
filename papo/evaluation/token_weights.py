"""Which tokens carry a quantity that every token of a response has, e.g. its perception KL."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

TOP_SHARE = 0.2
"""Of a response's tokens: how much of its KL the most dependent ones carry."""

NUM_TOP_TOKENS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWeight:
    """One token text over all responses.

    Attributes:
        token: its text.
        count: occurrences.
        mean_kl: exact KL per occurrence, nats.
        share_of_kl: of the exact KL of all tokens.
    """

    token: str
    count: int
    mean_kl: float
    share_of_kl: float


def carried_by_top(values: Sequence[float], share: float) -> float | None:
    """Returns the part of the sum that the largest `share` of the values carries; None of no sum.

    At least one value, and of a fraction the next whole number.
    """
    total = sum(values)
    if not total > 0:
        return None
    # 0.2 * 5 is a hair above 1 in binary.
    num_top = max(1, math.ceil(share * len(values) - 1e-9))
    return sum(sorted(values, reverse=True)[:num_top]) / total


def top_tokens(
    responses: Iterable[tuple[Sequence[str], Sequence[float]]],
) -> tuple[TokenWeight, ...]:
    """Returns the tokens that carry most, of responses given as their tokens and the KL of each."""
    found: dict[str, list[float]] = defaultdict(list)
    for tokens, values in responses:
        for token, value in zip(tokens, values, strict=True):
            found[token].append(value)
    total = sum(sum(values) for values in found.values())
    if not total > 0:
        return ()
    weights = [
        TokenWeight(
            token=token,
            count=len(values),
            mean_kl=sum(values) / len(values),
            share_of_kl=sum(values) / total,
        )
        for token, values in found.items()
    ]
    return tuple(sorted(weights, key=lambda one: -one.share_of_kl)[:NUM_TOP_TOKENS])


def rounded(values: Float[Tensor, " token"]) -> tuple[float, ...]:
    """Returns the values for a file: single precision has no more than seven digits, and people read files."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())
