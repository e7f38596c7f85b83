"""What a decoder says where the picture's values are taken away: a counterfactual of attention (CFPO)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEAST_WEIGHT = 1e-8
"""Smaller attention weights are no attention (CFPO's code)."""

Span = tuple[int, int]


def salient_attention(
    weights: Float[Tensor, "head query key"], spans: Sequence[Span], *, deviations: float
) -> Bool[Tensor, "head query key"]:
    """Where later tokens look at a picture more than usual.

    For the tokens [start, end) of each picture: the weights of all later queries to them, all heads together;
    those above their mean plus `deviations` standard deviations (divisor n - 1). A picture that fewer than two
    weights look at has none.
    """
    salient = torch.zeros_like(weights, dtype=torch.bool)
    for start, end in spans:
        looks = weights[:, end:, start:end]
        counted = looks[looks > LEAST_WEIGHT]
        if counted.numel() > 1:
            salient[:, end:, start:end] = looks > counted.mean() + deviations * counted.std()
    return salient


def values_without_picture(
    values: Float[Tensor, "head key channel"], is_image: Bool[Tensor, " key"]
) -> Float[Tensor, " head"]:
    """The one number per head, for all channels, that stands for a picture's values: their mean.

    The paper speaks of a vector; the code that its results come from takes the mean over channels too.
    """
    return values[:, is_image].mean((1, 2))


def attention_change(
    weights: Float[Tensor, "head query key"],
    values: Float[Tensor, "head key channel"],
    salient: Bool[Tensor, "head query key"],
    replacement: Float[Tensor, " head"],
) -> Float[Tensor, "head query channel"]:
    """What is added to the output of attention where salient looks see the replacement instead of the values."""
    return weights.where(salient, 0.0) @ (replacement[:, None, None] - values)
