"""Intervals and tests for shares, paired differences and agreement.

Every function that draws takes a seed and is a fixed function of its arguments. Shares are between
0 and 1; intervals are 95 % unless `level` says otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 10_000
# Resampled indices held at a time; bounds memory, not the result.
_INDICES_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the interval around it.

    Attributes:
        value: the estimate itself, from the data as they are.
        low, high: ends of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference, second minus first.

    Attributes:
        interval: of the mean difference.
        p_value: two-sided, of no difference.
    """

    interval: Interval
    p_value: float


def bootstrap_mean(per_item: Sequence[float], *, seed: int, level: float = 0.95) -> Interval:
    """Returns the mean over items with its percentile bootstrap interval (items are resampled).

    Where all items agree, resampling says nothing; for shares the interval is then the rule of
    three: it reaches 3 / number of items away from the value, within [0, 1].

    Args:
        per_item: one number per item, e.g. the share of its k responses that are right.
        seed: of the resampling.
        level: of the interval.

    Raises:
        ValueError: there is no item.
    """
    values = _finite(per_item)
    mean = float(values.mean())
    if np.ptp(values) == 0.0:
        reach = 3.0 / len(values)
        return Interval(mean, min(mean, max(0.0, mean - reach)), max(mean, min(1.0, mean + reach)))
    return _percentile(mean, _resampled_means(values, seed), level)


def bootstrap_mean_of_means(
    groups: Sequence[Sequence[float]], *, seed: int, level: float = 0.95
) -> Interval:
    """Returns the unweighted mean of the groups' means; items are resampled within each group.

    The interval of an average over benchmarks: the benchmarks are fixed, their items are a sample.
    Groups are resampled independently of one another.
    """
    means = [_finite(group).mean() for group in groups]
    resampled = np.mean(
        [
            _resampled_means(_finite(group), seed + 7919 * index)
            for index, group in enumerate(groups)
        ],
        axis=0,
    )
    return _percentile(float(np.mean(means)), resampled, level)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, seed: int, level: float = 0.95
) -> Difference:
    """Returns mean(second - first) over the same items, with interval and p-value.

    The p-value is two-sided with one added to both counts (Davison and Hinkley 1997, section 4.2), so
    that it is never 0.

    Raises:
        ValueError: the sequences differ in length or are empty.
    """
    if len(first) != len(second):
        raise ValueError(
            f"a paired comparison needs the same items twice; got {len(first)} and {len(second)}"
        )
    differences = _finite(second) - _finite(first)
    mean = float(differences.mean())
    resampled = _resampled_means(differences, seed)
    below, above = int((resampled <= 0).sum()), int((resampled >= 0).sum())
    p_value = min(1.0, 2.0 * (min(below, above) + 1) / (len(resampled) + 1))
    return Difference(_percentile(mean, resampled, level), p_value)


def wilson_interval(hits: int, trials: int, *, level: float = 0.95) -> Interval:
    """Returns a share with its Wilson score interval (Wilson 1927, JASA 22).

    Raises:
        ValueError: no trial, or more hits than trials.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"a share needs 0 <= hits <= trials and a trial; got {hits} of {trials}")
    found = stats.binomtest(hits, trials).proportion_ci(level, method="wilson")
    return Interval(hits / trials, float(found.low), float(found.high))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Returns the exact two-sided p-value of McNemar's test (McNemar 1947, Psychometrika 12).

    Args:
        only_first: items that the first run alone got right.
        only_second: items that the second alone got right.
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Returns q-values in the order of the p-values (Benjamini and Hochberg 1995)."""
    if not p_values:
        return []
    return [float(q) for q in stats.false_discovery_control(np.asarray(p_values), method="bh")]


def pass_at_k(num_responses: int, num_correct: int, k: int) -> float:
    """Returns the unbiased estimate of P(at least one of k responses is right).

    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374, equation 1).

    Raises:
        ValueError: k is not between 1 and num_responses.
    """
    if not 1 <= k <= num_responses:
        raise ValueError(
            f"pass@k needs 1 <= k <= number of responses; got k={k} of {num_responses}. "
            "Set evaluation.pass_at or rollout.num_responses."
        )
    return 1.0 - math.comb(num_responses - num_correct, k) / math.comb(num_responses, k)


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("a mean needs at least one item; got none")
    if not np.isfinite(array).all():
        raise ValueError("a mean needs finite numbers; got nan or infinity")
    return array


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    at_once = max(1, _INDICES_AT_ONCE // len(values))
    means = []
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        indices = generator.integers(len(values), size=(rows, len(values)))
        means.append(values[indices].mean(axis=1))
    return np.concatenate(means)


def _percentile(value: float, resampled: np.ndarray, level: float) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high))
