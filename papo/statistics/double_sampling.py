"""A share that one labeller finds, corrected by the items whose true label is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from papo.statistics.interval import Interval
from papo.statistics.resampling import RESAMPLES


@dataclass(frozen=True, slots=True)
class Checks:
    """What is known of the items of which a labeller says the same.

    Attributes:
        total: how many there are.
        true: of those checked, the ones that truly are of the category.
        checked: whose true label is known.
    """

    total: int
    true: int
    checked: int


def double_sampling(
    strata: Sequence[tuple[Checks, Checks]], *, seed: int, level: float = 0.95
) -> Interval | None:
    """Returns the true share of a category (double sampling: Tenenbein 1970, JASA 65:1350).

    In each stratum the share that truly has it is estimated on the checked items, among those the
    labeller gave the category and among the others; the two are weighted by how often it did either, and
    strata by their items. The interval draws how often the labeller says so (multinomial) and what is
    true of each group (Beta with Jeffreys' prior), so that a group with one checked item is as uncertain
    as it should be.

    Args:
        strata: per stratum, the items that the labeller gave the category, and the others.
        seed: of the draws.
        level: of the interval.

    Returns:
        The share with its interval; None without items, or where a group that has items has none checked.
    """
    total = sum(group.total for groups in strata for group in groups)
    if not total:
        return None
    rng = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(RESAMPLES)
    for groups in strata:
        if any(group.total and not group.checked for group in groups):
            return None
        sizes = np.array([group.total for group in groups])
        true = np.array([group.true for group in groups])
        checked = np.array([group.checked for group in groups])
        value += float((sizes * true / np.maximum(checked, 1)).sum() / total)
        counts = rng.multinomial(int(sizes.sum()), sizes / sizes.sum(), size=RESAMPLES)
        rates = rng.beta(true + 0.5, checked - true + 0.5, size=(RESAMPLES, 2))
        drawn += (counts * rates).sum(axis=1) / total
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Interval(value, float(min(low, value)), float(max(high, value)))
