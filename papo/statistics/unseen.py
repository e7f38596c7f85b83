"""What a sample leaves open because it is small: kinds of items that it happens not to hold."""

import math
from collections.abc import Sequence

import numpy as np

from papo.statistics.interval import Interval


def unseen_share(num_items: int, *, level: float = 0.95) -> float:
    """Returns how large a share of all items may be of a kind that none of `num_items` draws showed.

    The upper end of the interval of 0 of n (Clopper and Pearson 1934, Biometrika 26):
    1 - ((1 - level) / 2) ** (1 / n), about 3.7 / n at 95 %.
    """
    return 1.0 - ((1.0 - level) / 2.0) ** (1.0 / num_items)


def open_share(values: np.ndarray, *, level: float) -> float:
    """Returns `unseen_share` where too few items differ from the commonest value to be resampled, else 0.

    Too few are those with which a test of signs finds nothing at 1 - level: five at 95 %.
    """
    counts = np.unique(values.round(12), return_counts=True)[1]
    differ = len(values) - int(counts.max())
    too_few = differ < 1.0 - math.log2(1.0 - level)
    return unseen_share(len(values), level=level) if too_few else 0.0


def unseen_means(mean: float, unseen: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Returns the lowest and the highest mean where a share of the items is at a bound instead."""
    lowest, highest = bounds
    return mean - unseen * (mean - lowest), mean + unseen * (highest - mean)


def unseen_ratio(top: float, bottom: float, unseen: float, item: tuple[float, float]) -> float:
    """Returns the ratio of two means where a share of the items is this one instead."""
    seen = 1.0 - unseen
    return (seen * top + unseen * item[0]) / (seen * bottom + unseen * item[1])


def together(
    values: Sequence[float], ends: Sequence[tuple[float, ...]], *, independent: bool
) -> tuple[float, float]:
    """Returns the ends of a mean of estimates, from the ends of each.

    What independent ones leave open adds in squares (Zou and Donner 2008, Statistics in Medicine 27); of
    those that share items it adds as it is, which errs to the wide side.
    """
    mean = math.fsum(values) / len(values)
    below, above = (
        [abs(one[end] - value) for value, one in zip(values, ends, strict=True)] for end in (0, 1)
    )
    total = math.hypot if independent else lambda *parts: math.fsum(parts)
    return mean - total(*below) / len(values), mean + total(*above) / len(values)


def reaching(found: Interval, low: float, high: float) -> Interval:
    """Returns the interval, as far as these ends at least."""
    return Interval(
        found.value, min(found.low, low, found.value), max(found.high, high, found.value)
    )
