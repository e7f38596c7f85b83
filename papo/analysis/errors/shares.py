"""Shares of error categories, agreement between labellers, and judges corrected by true labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from papo.analysis.errors.taxonomy import ERROR_CATEGORIES, ErrorCategory, ErrorLabel
from papo.statistics import (
    Checks,
    Interval,
    bootstrap_mean,
    cohen_kappa,
    double_sampling,
    wilson_interval,
)

Labels = Mapping[str, ErrorLabel]
"""The labels of one labeller, by item."""


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

    Double sampling (`papo.statistics.double_sampling`) within each benchmark. Rogan and Gladen (1978)
    correct by sensitivity and specificity instead; this form uses the same table, never leaves [0, 1] and
    exists whenever both groups were checked. It holds where the checked cases are a random part of their
    group, so each benchmark is corrected by its own: how a judge errs on drawn scenes says nothing of how
    it errs on photographs.

    Returns:
        The share with its 95 % interval, or None where a group of a benchmark has no checked case.
    """
    benchmarks: dict[str, tuple[list[ErrorLabel | None], list[ErrorLabel | None]]] = {}
    for item, label in judged.items():
        said_so, others = benchmarks.setdefault(label.benchmark, ([], []))
        (said_so if label.category is category else others).append(true.get(item))
    strata = [
        (_checks(said_so, category), _checks(others, category))
        for _, (said_so, others) in sorted(benchmarks.items())
    ]
    return double_sampling(strata, seed=seed)


def _checks(truths: Sequence[ErrorLabel | None], category: ErrorCategory) -> Checks:
    known = [truth for truth in truths if truth is not None]
    return Checks(
        total=len(truths),
        true=sum(truth.category is category for truth in known),
        checked=len(known),
    )
