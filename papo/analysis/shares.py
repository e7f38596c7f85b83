"""Shares of error categories, agreement between labellers, and judges corrected by true labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from papo.analysis.taxonomy import ERROR_CATEGORIES, ErrorCategory, ErrorLabel
from papo.statistics import Interval, bootstrap_mean, cohen_kappa, wilson_interval

Labels = Mapping[str, ErrorLabel]
"""The labels of one labeller, by item."""

_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of the labelled cases fall into a category.

    Attributes:
        count, total: of the labelled cases.
        wilson, bootstrap: the share with its 95 % interval, by score and by resampling cases.
    """

    count: int
    total: int
    wilson: Interval
    bootstrap: Interval


def category_shares(
    categories: Sequence[ErrorCategory], *, seed: int
) -> dict[ErrorCategory, Share]:
    """Returns the share of every error category among labelled cases; empty without any."""
    if not categories:
        return {}
    counts = Counter(categories)
    total = len(categories)
    return {
        category: Share(
            count=counts[category],
            total=total,
            wilson=wilson_interval(counts[category], total),
            bootstrap=bootstrap_mean([float(one is category) for one in categories], seed=seed),
        )
        for category in ERROR_CATEGORIES
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two labellers agree on the cases that both labelled.

    Attributes:
        first, second: who.
        items: cases with both labels.
        agreed: of these, with the same category.
        kappa: Cohen's; None where it does not exist (no common case, or a single category in use).
        table: (first's category, second's) -> cases.
    """

    first: str
    second: str
    items: int
    agreed: int
    kappa: Interval | None
    table: Mapping[tuple[ErrorCategory, ErrorCategory], int]


def agreement(first: Labels, second: Labels, *, names: tuple[str, str], seed: int) -> Agreement:
    """Returns how far two labellers agree."""
    common = sorted(first.keys() & second.keys())
    pairs = [(first[item].category, second[item].category) for item in common]
    kappa = None
    if len({category for pair in pairs for category in pair}) > 1:
        ones, others = zip(*pairs, strict=True)
        kappa = cohen_kappa(ones, others, seed=seed)
    return Agreement(
        first=names[0],
        second=names[1],
        items=len(pairs),
        agreed=sum(one is other for one, other in pairs),
        kappa=kappa,
        table=Counter(pairs),
    )


def corrected_share(
    judged: Labels, true: Labels, category: ErrorCategory, *, seed: int
) -> Interval | None:
    """Returns a judge's share of a category, corrected by the cases whose true label is known.

    Among the cases the judge gave the category, and among those it did not, the share that truly has
    it is estimated on the checked cases; the two are weighted by how often the judge did either
    (double sampling: Tenenbein 1970, JASA 65:1350). Rogan and Gladen (1978) correct by sensitivity
    and specificity instead; where the checked cases are a random part of the judged ones, as here,
    this form uses the same table, never leaves [0, 1] and exists whenever both groups were checked.
    The interval resamples all cases.

    Returns:
        The share with its 95 % interval, or None where one of the two groups has no checked case.
    """
    cells = np.zeros((2, 3))  # judged so or not; truly so, truly not, not checked
    for item, label in judged.items():
        row = 0 if label.category is category else 1
        column = 2 if item not in true else 0 if true[item].category is category else 1
        cells[row, column] += 1
    used = cells[cells.sum(axis=1) > 0]
    if len(used) == 0 or (used[:, :2].sum(axis=1) == 0).any():
        return None
    total = cells.sum()
    drawn = np.random.default_rng(seed).multinomial(
        int(total), cells.ravel() / total, size=_RESAMPLES
    )
    resampled = _double_sampling(drawn.reshape(-1, 2, 3).astype(float), smoothing=0.5)
    low, high = np.quantile(resampled, [0.025, 0.975])
    value = float(_double_sampling(cells[None], smoothing=0.0)[0])
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _double_sampling(cells: np.ndarray, *, smoothing: float) -> np.ndarray:
    """The corrected share of each table; `smoothing` keeps a resample without checked cases defined."""
    weights = cells.sum(axis=2) / cells.sum(axis=(1, 2))[:, None]
    hits, checked = cells[:, :, 0], cells[:, :, :2].sum(axis=2)
    rates = np.where(
        checked + smoothing > 0,
        (hits + smoothing) / np.maximum(checked + 2 * smoothing, 1e-12),
        0.0,
    )
    return np.asarray((weights * rates).sum(axis=1))
