"""What credits are made of: statistics of one number per token, over a response or over blocks of responses."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.functional.divergence import kl_k3

Values = Float[Tensor, "rollout token"]
Mask = Bool[Tensor, "rollout token"]

LEAST_RANGE = 1e-8
"""Values that differ by less count as equal (VEPO, PGPO)."""


def k3_dependence(view_logprobs: Values, image_logprobs: Values) -> Values:
    """k3 of a token's log-probs given a view and given the image, e^d - d - 1 with d = view - image cut to
    +-20, in [0, 10]: how much the token depends on what the view hides (VPPO, CGPO).
    """
    return kl_k3(image_logprobs, view_logprobs, log_ratio_max=20.0).clamp(0.0, 10.0)


def response_means(values: Values, mask: Mask) -> Float[Tensor, " rollout"]:
    """The mean over the tokens of each response."""
    return values.where(mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)


def min_max(
    values: Values,
    mask: Mask,
    *,
    rows: Sequence[slice] | None = None,
    epsilon: float = 0.0,
    least_range: float = LEAST_RANGE,
    with_zero: bool = False,
) -> Values:
    """(x - min) / (max - min) over the tokens of each block, 0 where they are all equal and at padding.

    Args:
        values: of each token.
        mask: the tokens that are there.
        rows: the blocks; None: each response is one.
        epsilon: added to the range.
        least_range: what the range counts for at least.
        with_zero: 0 counts among the values.
    """
    low = values.masked_fill(~mask, torch.inf).amin(1)
    high = values.masked_fill(~mask, -torch.inf).amax(1)
    if with_zero:
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    for block in rows or ():
        low[block], high[block] = low[block].min(), high[block].max()
    width = (high - low + epsilon).clamp_min(least_range)
    return ((values - low[:, None]) / width[:, None]).where(mask, 0.0)


def mean_one(weights: Values, mask: Mask) -> Values:
    """Weights scaled to a mean of 1 in each response; all 1 where all are 0: 0 / 0 would lose the response."""
    means = response_means(weights, mask)[:, None]
    return torch.where(means > 0, weights / means, 1.0).where(mask, 0.0)


def ascending_rank(values: Values, mask: Mask, share: float) -> Float[Tensor, "rollout 1"]:
    """The value at place floor(share * n), counted from 0, of the n values of each response in ascending order."""
    ordered = values.masked_fill(~mask, torch.inf).sort(1).values
    lengths = mask.sum(1, keepdim=True)
    return ordered.gather(1, (share * lengths).long().minimum(lengths - 1))


def largest_share(
    values: Values,
    mask: Mask,
    share: float,
    *,
    rows: Sequence[slice] | None = None,
    shuffles_ties: bool = False,
) -> Mask:
    """True at the ceil(share * n) largest of the n values of each block.

    Args:
        values: of each token.
        mask: the tokens that are there.
        share: 0 to 1.
        rows: the blocks; None: each response is one.
        shuffles_ties: of equal values some are chosen that a fixed permutation puts first; otherwise those that
            come first, which favours the first responses where most values are equal.
    """
    chosen = torch.zeros_like(mask)
    blocks = [slice(i, i + 1) for i in range(len(mask))] if rows is None else rows
    for block in blocks:
        found = values[block][mask[block]]
        # A product like 0.3 * 10 is rounded up: 3.0000000000000004 are 3 tokens.
        count = -int(-round(share * len(found), 9) // 1)
        order = torch.arange(len(found), device=mask.device)
        if shuffles_ties:
            order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).to(order)
        kept = torch.zeros(len(found), dtype=torch.bool, device=mask.device)
        kept[order[found[order].argsort(descending=True, stable=True)[:count]]] = True
        chosen[block] = chosen[block].masked_scatter(mask[block], kept)
    return chosen


def largest_factor(shares: Float[Tensor, " rollout"], least: float) -> Float[Tensor, ""]:
    """The factor b_max of a share of 1 with which the factors least + share * (b_max - least) have a mean of 1; it
    has no upper limit (VPPO).
    """
    return least + (1 - least) / (shares.nanmean() + 1e-8)


def robust_scores(values: Float[Tensor, " rollout"]) -> Float[Tensor, " rollout"]:
    """(x - median) / median |x - median|, of an even number the lower median; one value alone has 0 (CGPO)."""
    distance = values - values.median()
    return distance / (distance.abs().median() + 1e-8)


def discounted_future(values: Values, mask: Mask, *, discount: float, window: int) -> Values:
    """sum_k d^(k-1) x_(t+k) / sum_k d^(k-1) over the at most `window` tokens k = 1, 2, ... that follow; 0 at the
    last token (PIVOT).
    """
    total, weights, weight = torch.zeros_like(values), torch.zeros_like(values), 1.0
    for ahead in range(1, min(window, values.shape[1] - 1) + 1):
        there = mask[:, ahead:]
        total[:, :-ahead] += weight * values[:, ahead:].where(there, 0.0)
        weights[:, :-ahead] += weight * there.to(values)
        weight *= discount
    return torch.where(weights > 0, total / weights, 0.0).where(mask, 0.0)


def detrended(values: Values, mask: Mask) -> Values:
    """What least squares with intercept and slope over the position leaves, in each response (PIVOT)."""
    place = torch.arange(values.shape[1], device=values.device).to(values).expand_as(values)
    place = place - response_means(place, mask)[:, None]
    centred = values - response_means(values, mask)[:, None]
    spread = place.square().where(mask, 0.0).sum(1, keepdim=True)
    slope = (place * centred).where(mask, 0.0).sum(1, keepdim=True) / spread.clamp_min(1e-12)
    return (centred - slope * place).where(mask, 0.0)


def shrunk_gaussians(
    samples: Float[Tensor, "sample dimension"], classes: Int[Tensor, " sample"], num_classes: int
) -> tuple[
    Int[Tensor, " class"],
    Float[Tensor, "class dimension"],
    Float[Tensor, "class dimension dimension"],
]:
    """Returns number, mean and Ledoit-Wolf covariance of the samples of each class; 0 where it has none.

    The covariance S (divisor n) shrinks to the identity times its mean variance m: (1 - s) S + s m I with
    s = min(b, d) / d, d = |S - m I|^2, b = (mean |x|^4 - |S|^2) / n (Ledoit and Wolf, 2004, Lemma 3.2 to 3.4).
    """
    counts = torch.bincount(classes, minlength=num_classes)
    divisors = counts.clamp_min(1).to(samples)

    def mean_of(values: Tensor) -> Tensor:
        sums = values.new_zeros((num_classes, *values.shape[1:])).index_add(0, classes, values)
        return sums / divisors.reshape(-1, *[1] * (values.ndim - 1))

    means = mean_of(samples)
    centred = samples - means[classes]
    covariance = mean_of(centred[:, :, None] * centred[:, None, :])
    identity = torch.eye(samples.shape[1]).to(samples)
    variance = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    distance = (covariance - variance * identity).square().sum((1, 2))
    fourth = mean_of(centred.square().sum(1).square())
    noise = (fourth - covariance.square().sum((1, 2))) / divisors
    shrinkage = torch.where(noise > 0, noise.minimum(distance) / distance, 0.0)
    shrinkage = shrinkage.nan_to_num()[:, None, None]
    return counts, means, (1 - shrinkage) * covariance + shrinkage * variance * identity
