"""What credits are made of: statistics of one number per token, over a response or over blocks of responses."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Values = Float[Tensor, "rollout token"]
Mask = Bool[Tensor, "rollout token"]


def k3_dependence(view_logprobs: Values, image_logprobs: Values) -> Values:
    """k3 of a token's log-probs given a view and given the image, e^d - d - 1 with d = view - image cut to
    +-20, in [0, 10]: how much the token depends on what the view hides (VPPO, CGPO).
    """
    difference = (view_logprobs - image_logprobs).clamp(-20.0, 20.0)
    return (difference.exp() - difference - 1).clamp(0.0, 10.0)


def response_means(values: Values, mask: Mask) -> Float[Tensor, " rollout"]:
    """The mean over the tokens of each response."""
    return values.where(mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)


def largest_share(
    values: Values, mask: Mask, share: float, *, rows: Sequence[slice] | None = None
) -> Mask:
    """True at the ceil(share * n) largest of the n values of each block; of equal ones at those that come first.

    Args:
        values: of each token.
        mask: the tokens that are there.
        share: above 0 to 1.
        rows: the blocks; None: each response is one.
    """
    chosen = torch.zeros_like(mask)
    blocks = [slice(i, i + 1) for i in range(len(mask))] if rows is None else rows
    for block in blocks:
        found = values[block][mask[block]]
        # A product like 0.3 * 10 is rounded up: 3.0000000000000004 are 3 tokens.
        count = -int(-round(share * len(found), 9) // 1)
        kept = torch.zeros(len(found), dtype=torch.bool, device=mask.device)
        kept[found.argsort(descending=True, stable=True)[:count]] = True
        chosen[block] = chosen[block].masked_scatter(mask[block], kept)
    return chosen
