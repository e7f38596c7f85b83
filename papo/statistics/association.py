"""How well one number follows another over items, and how well it tells two kinds of item apart."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy import stats

from papo.statistics.interval import Interval

_RESAMPLES = 2_000


def spearman(first: Sequence[float], second: Sequence[float], *, seed: int) -> Interval | None:
    """Returns Spearman's rank correlation with its 95 % percentile bootstrap interval over items.

    Ties get their mean rank. None where one of the two does not vary, or for fewer than four items.

    Args:
        first: one number per item.
        second: of the same items.
        seed: of the resampling.

    Raises:
        ValueError: the lengths differ.
    """
    ranks = partial(stats.rankdata, axis=-1)
    return _correlation(first, second, seed, lambda values: np.asarray(ranks(values)))


def pearson(first: Sequence[float], second: Sequence[float], *, seed: int) -> Interval | None:
    """Returns Pearson's correlation; otherwise as `spearman`."""
    return _correlation(first, second, seed, lambda values: values)


def area_under_curve(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Returns the chance that a positive has a larger value than a negative; ties count half (Mann and Whitney 1947).

    Raises:
        ValueError: one of the two is empty.
    """
    if not positives or not negatives:
        raise ValueError(
            f"two kinds are told apart where both are there; got {len(positives)} and {len(negatives)}"
        )
    found = stats.mannwhitneyu(positives, negatives).statistic
    return float(found) / (len(positives) * len(negatives))


def _correlation(
    first: Sequence[float],
    second: Sequence[float],
    seed: int,
    transform: Callable[[np.ndarray], np.ndarray],
) -> Interval | None:
    if len(first) != len(second):
        raise ValueError(
            f"a correlation is of the same items; got {len(first)} and {len(second)} numbers"
        )
    both = np.asarray([first, second], dtype=np.float64)
    if len(first) < 4 or bool((both == both[:, :1]).all(axis=1).any()):
        return None
    items = np.random.default_rng(seed).integers(len(first), size=(_RESAMPLES, len(first)))
    resampled = _of_rows(transform(both[0][items]), transform(both[1][items]))
    low, high = np.quantile(resampled[np.isfinite(resampled)], [0.025, 0.975])
    (value,) = _of_rows(transform(both[:1]), transform(both[1:]))
    return Interval(float(value), float(low), float(high))


def _of_rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a = first - first.mean(axis=1, keepdims=True)
    b = second - second.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            (a * b).sum(axis=1) / np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
        )
