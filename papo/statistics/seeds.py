"""Comparing two methods over common seeds, where each seed gives one number per method."""

import math
from collections.abc import Mapping, Sequence

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
    return _difference(*_mean_and_error(differences), level)


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Returns the mean of one number per seed, or per start, with Student's t interval.

    Raises:
        ValueError: fewer than two values.
    """
    return _difference(*_mean_and_error(np.asarray(values, dtype=np.float64)), level).interval


def paired_t_over_starts(
    differences: Sequence[Mapping[int, float]], *, level: float = 0.95
) -> Difference:
    """Returns the mean over starts of their mean differences, as a draw of other starts would vary it.

    One number per start, its mean over seeds; Student's t over these numbers. The starts are the units,
    whatever the number of seeds, so with three starts the interval is wide (4.3 standard errors).
    Where starts have the same seeds, what a seed does in all of them alike is not in it.

    Args:
        differences: for each start, seed -> second minus first.
        level: of the interval.

    Raises:
        ValueError: fewer than two starts, or one without a seed.
    """
    return _difference(*_mean_and_error(_start_means(differences)), level)


def paired_t_within_starts(
    differences: Sequence[Mapping[int, float]], *, level: float = 0.95
) -> Difference:
    """Returns the mean over starts of their mean differences, as other seeds of these starts vary it.

    Starts are fixed: it says nothing of other starts. Seeds are the units: what one seed does in
    several starts may go together (it draws the same problems), so a seed's deviations from the means
    of its starts are added before they are squared. With the same seeds in every start this is
    Student's t over seeds of the mean over starts; otherwise the degrees of freedom are those of the
    start with the fewest seeds, which errs to the wide side.

    Args:
        differences: for each start, seed -> second minus first.
        level: of the interval.

    Raises:
        ValueError: no start, or one with fewer than two seeds.
    """
    return _difference(*_within_starts(differences), level)


def detectable_over_starts(differences: Sequence[Mapping[int, float]]) -> float:
    """Returns `minimum_detectable_difference` of the test of `paired_t_over_starts`."""
    return minimum_detectable_difference(_start_means(differences).tolist())


def detectable_within_starts(differences: Sequence[Mapping[int, float]]) -> float:
    """Returns `minimum_detectable_difference` of the test of `paired_t_within_starts`."""
    _, error, degrees = _within_starts(differences)
    return _detectable(error, degrees, power=0.8, level=0.95)


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
    return _detectable(error, degrees, power=power, level=level)


def _detectable(error: float, degrees: int, *, power: float, level: float) -> float:
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


def _difference(mean: float, error: float, degrees: int, level: float) -> Difference:
    if error == 0.0:
        return Difference(Interval(mean, mean, mean), 1.0 if mean == 0.0 else 0.0)
    reach = float(stats.t.ppf(0.5 + level / 2.0, degrees)) * error
    p_value = 2.0 * float(stats.t.sf(abs(mean) / error, degrees))
    return Difference(Interval(mean, mean - reach, mean + reach), p_value)


def _start_means(differences: Sequence[Mapping[int, float]]) -> np.ndarray:
    if any(not each for each in differences):
        raise ValueError("a mean over starts needs a seed of each start; one has none")
    return np.asarray([math.fsum(each.values()) / len(each) for each in differences])


def _within_starts(differences: Sequence[Mapping[int, float]]) -> tuple[float, float, int]:
    """Mean, standard error and degrees of freedom where the starts are fixed."""
    if not differences or any(len(each) < 2 for each in differences):
        raise ValueError("an interval within starts needs at least two seeds of every start")
    deviations: dict[int, float] = {}
    for each in differences:
        mean, _, degrees = _mean_and_error(np.asarray(list(each.values()), dtype=np.float64))
        # Sum of squares / degrees / number is the variance of a mean.
        scale = 1.0 / (len(differences) * math.sqrt(degrees * len(each)))
        for seed, value in each.items():
            deviations[seed] = deviations.get(seed, 0.0) + scale * (value - mean)
    error = math.sqrt(math.fsum(value * value for value in deviations.values()))
    mean = float(_start_means(differences).mean())
    if error <= 1e-12 * max(abs(value) for each in differences for value in each.values()):
        error = 0.0
    return mean, error, min(map(len, differences)) - 1


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
