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

    Within a benchmark, among the cases the judge gave the category and among those it did not, the
    share that truly has it is estimated on the checked cases; the two are weighted by how often the
    judge did either (double sampling: Tenenbein 1970, JASA 65:1350), and benchmarks by their cases.
    Rogan and Gladen (1978) correct by sensitivity and specificity instead; this form uses the same
    table, never leaves [0, 1] and exists whenever both groups were checked. It holds where the
    checked cases are a random part of their group, so each benchmark is corrected by its own: how a
    judge errs on drawn scenes says nothing of how it errs on photographs.

    The interval draws how often the judge says so (multinomial) and what is true of each group (Beta
    with Jeffreys' prior), so that a group with one checked case is as uncertain as it should be.

    Returns:
        The share with its 95 % interval, or None where a group of a benchmark has no checked case.
    """
    tables: dict[str, np.ndarray] = {}
    for item, label in judged.items():
        # judged so or not; truly so, truly not, not checked
        cells = tables.setdefault(label.benchmark, np.zeros((2, 3)))
        row = 0 if label.category is category else 1
        column = 2 if item not in true else 0 if true[item].category is category else 1
        cells[row, column] += 1
    if not tables:
        return None
    total = sum(cells.sum() for cells in tables.values())
    rng = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(_RESAMPLES)
    for benchmark in sorted(tables):
        cells = tables[benchmark]
        groups, hits, checked = cells.sum(axis=1), cells[:, 0], cells[:, :2].sum(axis=1)
        if (checked[groups > 0] == 0).any():
            return None
        value += float((groups * hits / np.maximum(checked, 1)).sum() / total)
        counts = rng.multinomial(int(groups.sum()), groups / groups.sum(), size=_RESAMPLES)
        rates = rng.beta(hits + 0.5, checked - hits + 0.5, size=(_RESAMPLES, 2))
        drawn += (counts * rates).sum(axis=1) / total
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(min(low, value)), float(max(high, value)))
