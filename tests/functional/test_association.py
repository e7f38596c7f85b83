"""Correlations with their intervals, and the area under a curve, against SciPy and by hand."""

import numpy as np
import pytest
from scipy import stats

from papo.statistics import area_under_curve, pearson, spearman


def test_they_are_scipys_and_hold_their_values():
    rng = np.random.default_rng(0)
    first = rng.normal(size=40).round(1)
    second = (first + rng.normal(size=40)).round(1)
    for ours, theirs in ((spearman, stats.spearmanr), (pearson, stats.pearsonr)):
        found = ours(first.tolist(), second.tolist(), seed=0)
        assert found.value == pytest.approx(theirs(first, second).statistic, abs=1e-12)
        assert -1 <= found.low < found.value < found.high <= 1


def test_a_monotonic_curve_has_rank_correlation_one_and_no_linear_one():
    numbers = [float(n) for n in range(8)]
    steep = [10.0**n for n in range(8)]
    assert spearman(numbers, steep, seed=0).value == pytest.approx(1.0)
    assert pearson(numbers, steep, seed=0).value < 0.8
    assert spearman(numbers, steep[::-1], seed=0).value == pytest.approx(-1.0)


def test_what_does_not_vary_has_none():
    assert spearman([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], seed=0) is None
    assert spearman([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], seed=0) is None
    with pytest.raises(ValueError, match="4 and 5"):
        pearson([1.0] * 4, [2.0] * 5, seed=0)


def test_the_area_is_the_share_of_pairs_and_ties_count_half():
    assert area_under_curve([3.0, 1.0], [2.0, 1.0]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert area_under_curve([2.0], [1.0]) == 1.0
    with pytest.raises(ValueError, match="1 and 0"):
        area_under_curve([1.0], [])


def test_the_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        first = rng.normal(size=40)
        second = 0.6 * first + 0.8 * rng.normal(size=40)
        found = pearson(first.tolist(), second.tolist(), seed=trial)
        covered += found.low <= 0.6 <= found.high
    assert covered >= 86
