"""Comparing two methods over common seeds, where each seed gives one number per method.

A t interval takes its width from how the numbers differ. A single number, and numbers that all agree, say
nothing of it, so these have no interval (None), no detectable difference, and no smaller p-value than a
test of signs gives. Numbers with bounds, as shares have, get the part of the interval that is possible.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize, stats

from papo.statistics.interval import Interval, MeanDifference

UNBOUNDED = (-math.inf, math.inf)


def t_interval(
    values: Sequence[float], *, bounds: tuple[float, float] = UNBOUNDED, level: float = 0.95
) -> Interval | None:
    """Returns the mean of one number per seed, or per start, with Student's t interval.

    None for a single number and where all agree.

    Args:
        values: at least one.
        bounds: of the numbers: (0, 1) for shares, (0, inf) for divergences.
        level: of the interval.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if len(values) == 1 and math.isfinite(values[0]):
        return None
    mean, error, degrees = _mean_and_error(np.asarray(values, dtype=np.float64))
    return _interval(mean, error, degrees, bounds, level)


def paired_t(
    first: Sequence[float],
    second: Sequence[float],
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    level: float = 0.95,
) -> MeanDifference:
    """Returns mean(second - first) over common seeds, with Student's t interval and p-value.

    Student 1908 (Biometrika 6). Assumes that the differences are about normal; with two or three
    seeds the interval is wide, as it should be. Where all differences agree there is none.

    Args:
        first: one number per seed.
        second: the other method's, in the same order.
        bounds: of the difference: (-1, 1) for shares.
        level: of the interval.

    Raises:
        ValueError: the lengths differ, or there are fewer than two seeds.
    """
    if len(first) != len(second):
        raise ValueError(
            f"a paired comparison needs the same seeds twice; got {len(first)} and {len(second)}"
        )
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return _difference(*_mean_and_error(differences), bounds, level)


def ratio_of_means(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95
) -> Interval | None:
    """Returns mean(second) / mean(first) of independent positive numbers, e.g. 1.19 times the seconds.

    The delta method on the logarithm with Welch's degrees of freedom (1947, Biometrika 34). None where
    one of the two is a single number, or where the numbers of both agree.

    Raises:
        ValueError: a mean that is not positive, or a number that is not finite.
    """
    if not math.fsum(first) > 0.0 or not math.fsum(second) > 0.0:
        raise ValueError("a ratio of means needs positive means on both sides")
    if min(len(first), len(second)) < 2:
        return None
    parts = [_mean_and_error(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    squares = [(error / mean) ** 2 for mean, error, _ in parts]
    if not sum(squares):
        return None
    spread = sum(
        square**2 / degrees for square, (_, _, degrees) in zip(squares, parts, strict=True)
    )
    reach = float(stats.t.ppf(0.5 + level / 2.0, sum(squares) ** 2 / spread)) * math.sqrt(
        sum(squares)
    )
    ratio = parts[1][0] / parts[0][0]
    return Interval(ratio, ratio * math.exp(-reach), ratio * math.exp(reach))


def paired_t_over_starts(
    differences: Sequence[Mapping[int, float]],
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    level: float = 0.95,
) -> MeanDifference:
    """Returns the mean over starts of their mean differences, as a draw of other starts would vary it.

    One number per start, its mean over seeds; Student's t over these numbers. The starts are the units,
    whatever the number of seeds, so with three starts the interval is wide (4.3 standard errors).
    Where starts have the same seeds, what a seed does in all of them alike is not in it.

    Args:
        differences: for each start, seed -> second minus first.
        bounds: of the difference: (-1, 1) for shares.
        level: of the interval.

    Raises:
        ValueError: fewer than two starts, or one without a seed.
    """
    return _difference(*_mean_and_error(_start_means(differences)), bounds, level)


def paired_t_within_starts(
    differences: Sequence[Mapping[int, float]],
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    level: float = 0.95,
) -> MeanDifference:
    """Returns the mean over starts of their mean differences, as other seeds of these starts vary it.

    Starts are fixed: it says nothing of other starts. Seeds are the units: what one seed does in
    several starts may go together (it draws the same problems), so a seed's deviations from the means
    of its starts are added before they are squared. With the same seeds in every start this is
    Student's t over seeds of the mean over starts; otherwise the degrees of freedom are those of the
    start with the fewest seeds, which errs to the wide side.

    Args:
        differences: for each start, seed -> second minus first.
        bounds: of the difference: (-1, 1) for shares.
        level: of the interval.

    Raises:
        ValueError: no start, or one with fewer than two seeds.
    """
    return _difference(*_within_starts(differences), bounds, level)


def detectable_over_starts(differences: Sequence[Mapping[int, float]]) -> float | None:
    """Returns `minimum_detectable_difference` of the test of `paired_t_over_starts`."""
    return minimum_detectable_difference(_start_means(differences).tolist())


def detectable_within_starts(differences: Sequence[Mapping[int, float]]) -> float | None:
    """Returns `minimum_detectable_difference` of the test of `paired_t_within_starts`."""
    _, error, degrees = _within_starts(differences)
    return _detectable(error, degrees, power=0.8, level=0.95)


def minimum_detectable_difference(
    differences: Sequence[float], *, power: float = 0.8, level: float = 0.95
) -> float | None:
    """Returns the smallest true mean difference that a paired t test finds with probability `power`.

    From the spread of the differences seen so far and their number, by the noncentral t
    distribution (Cohen 1988, Statistical Power Analysis, chapter 2); in their unit. What lies below
    it cannot be told from noise with so many seeds. None where all differences agree.

    Args:
        differences: one per seed.
        power: between 1 - level and 1.
        level: of the two-sided test.

    Raises:
        ValueError: fewer than two seeds, or an impossible power.
    """
    _, error, degrees = _mean_and_error(np.asarray(differences, dtype=np.float64))
    return _detectable(error, degrees, power=power, level=level)


def _detectable(error: float, degrees: int, *, power: float, level: float) -> float | None:
    if not 1.0 - level < power < 1.0:
        raise ValueError(f"a power lies between {1.0 - level:g} (chance) and 1; got {power}")
    if error == 0.0:
        return None
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


def _difference(
    mean: float, error: float, degrees: int, bounds: tuple[float, float], level: float
) -> MeanDifference:
    number = degrees + 1
    interval = _interval(mean, error, degrees, bounds, level)
    if interval is not None:
        p_value = 2.0 * float(stats.t.sf(abs(mean) / error, degrees))
    else:  # a test of signs: without spread, t would be infinite
        p_value = 1.0 if mean == 0.0 else 0.5**degrees
    return MeanDifference(value=mean, number=number, interval=interval, p_value=p_value)


def _interval(
    mean: float, error: float, degrees: int, bounds: tuple[float, float], level: float
) -> Interval | None:
    if error == 0.0:
        return None
    reach = float(stats.t.ppf(0.5 + level / 2.0, degrees)) * error
    return Interval(mean, mean - reach, mean + reach).within(bounds)


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
