"""Comparing two methods over common seeds, where each seed gives one number per method."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from papo.statistics.interval import Difference, Interval


def paired_t(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> Difference:
    """Returns mean(second - first) over common seeds, with Student's t interval and p-value.

    Student 1908 (Biometrika 6). Assumes that the differences are about normal; with two or three
    seeds the interval is wide, as it should be. Where all differences agree, the interval is a point
    and says nothing of seeds that were not run.

    Args:
        first: one number per seed.
        second: the other method's, in the same order.
        level: of the interval.

    Raises:
        ValueError: the lengths differ, or there are fewer than two seeds.
    """
    if len(first) != len(second):
        raise ValueError(
            f"a paired comparison needs the same seeds twice; got {len(first)} and {len(second)}"
        )
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    mean, error, degrees = _mean_and_error(differences)
    if error == 0.0:
        return Difference(Interval(mean, mean, mean), 1.0 if mean == 0.0 else 0.0)
    reach = float(stats.t.ppf(0.5 + level / 2.0, degrees)) * error
    p_value = 2.0 * float(stats.t.sf(abs(mean) / error, degrees))
    return Difference(Interval(mean, mean - reach, mean + reach), p_value)


def minimum_detectable_difference(
    differences: Sequence[float], *, power: float = 0.8, level: float = 0.95
) -> float:
    """Returns the smallest true mean difference that a paired t test finds with probability `power`.

    From the spread of the differences seen so far and their number, by the noncentral t
    distribution (Cohen 1988, Statistical Power Analysis, chapter 2); in their unit. What lies below
    it cannot be told from noise with so many seeds.

    Args:
        differences: one per seed.
        power: between 1 - level and 1.
        level: of the two-sided test.

    Raises:
        ValueError: fewer than two seeds, or an impossible power.
    """
    _, error, degrees = _mean_and_error(np.asarray(differences, dtype=np.float64))
    if not 1.0 - level < power < 1.0:
        raise ValueError(f"a power lies between {1.0 - level:g} (chance) and 1; got {power}")
    critical = float(stats.t.ppf(0.5 + level / 2.0, degrees))

    def lacking(noncentrality: float) -> float:
        # P(T < -c) at noncentrality d is P(T > c) at -d, where scipy's tail is never nan.
        found = stats.nct.sf(critical, degrees, [noncentrality, -noncentrality]).sum()
        return float(found) - power

    # Beyond critical + 10 spreads of t the power is 1 for any number of seeds but two or three.
    highest = critical + 10.0
    while lacking(highest) < 0.0:
        highest *= 2.0
    return float(optimize.brentq(lacking, 0.0, highest)) * error


def _mean_and_error(differences: np.ndarray) -> tuple[float, float, int]:
    """Mean, standard error of the mean and degrees of freedom."""
    if len(differences) < 2 or not np.isfinite(differences).all():
        raise ValueError(
            "a t test needs finite numbers of at least two seeds; got "
            f"{[float(one) for one in differences[:5]]}"
        )
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    # Equal numbers can differ by rounding, which is not spread.
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        error = 0.0
    return float(differences.mean()), error, len(differences) - 1
