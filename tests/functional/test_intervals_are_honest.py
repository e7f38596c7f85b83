"""No interval is a point, none leaves what its number can be, and one place makes them all."""

import ast
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papo.statistics import (
    Checks,
    bootstrap_mean,
    bootstrap_mean_of_means,
    bootstrap_ratio,
    cohen_kappa,
    double_sampling,
    mean_relative_gain,
    paired_bootstrap,
    paired_t,
    relative_reduction,
    t_interval,
    wilson_interval,
)

ROOT = Path(__file__).parents[2]
NUM_RESPONSES = 4

counts = st.lists(st.integers(0, NUM_RESPONSES), min_size=1, max_size=30)
shares = counts.map(lambda rows: [count / NUM_RESPONSES for count in rows])
pairs = st.lists(
    st.tuples(st.integers(0, NUM_RESPONSES), st.integers(0, NUM_RESPONSES)), min_size=1, max_size=30
).map(
    lambda rows: tuple(
        [count / NUM_RESPONSES for count in side] for side in zip(*rows, strict=True)
    )
)
few = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("papo.statistics.resampling.RESAMPLES", 200)
        yield


def check(interval, lowest, highest):
    assert lowest <= interval.low <= interval.value <= interval.high <= highest
    assert interval.high - interval.low > 1e-3


@given(shares)
@few
def test_a_mean_of_shares(values):
    found = bootstrap_mean(values, seed=0)
    check(found, 0.0, 1.0)
    if len(values) == 2:
        assert found.high - found.low > 0.8


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@few
def test_a_share_of_trials(case):
    check(wilson_interval(*case), 0.0, 1.0)


@given(st.lists(shares, min_size=1, max_size=4))
@few
def test_a_mean_over_benchmarks(groups):
    check(bootstrap_mean_of_means(groups, seed=0), 0.0, 1.0)


@given(pairs)
@few
def test_a_paired_difference(sides):
    found = paired_bootstrap(*sides, seed=0)
    check(found.interval, -1.0, 1.0)
    if found.p_value > 0.05:
        assert found.interval.low <= 0.0 <= found.interval.high


@given(pairs.filter(lambda sides: sum(sides[0]) > 0))
@few
def test_a_reduction_and_a_gain(sides):
    check(relative_reduction(*sides, paired=True, seed=0), -math.inf, 1.0)
    check(relative_reduction(*sides, paired=False, seed=0), -math.inf, 1.0)
    check(bootstrap_ratio(sides[1], sides[0], seed=0), 0.0, math.inf)
    check(mean_relative_gain([sides[0]], [sides[1]], seed=0), -1.0, math.inf)


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 2), min_size=2, max_size=30))
@few
def test_an_agreement(labels):
    first, second = zip(*labels, strict=True)
    if len({*first, *second}) > 1:
        check(cohen_kappa(first, second, seed=0), -1.0, 1.0)


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 9), st.integers(0, 9))
@few
def test_a_corrected_share(said, more_said, others, more_others):
    groups = (Checks(said + more_said, said // 2, said), Checks(others + more_others, 0, others))
    check(double_sampling([groups], seed=0), 0.0, 1.0)


@given(shares)
@few
def test_one_number_per_seed(values):
    found = t_interval(values, bounds=(0.0, 1.0))
    if len(set(values)) == 1:
        assert found is None
    else:
        check(found, 0.0, 1.0)


@given(pairs.filter(lambda sides: len(sides[0]) > 1))
@few
def test_a_paired_difference_over_seeds(sides):
    found = paired_t(*sides, bounds=(-1.0, 1.0))
    assert found.p_value > 0.0
    if found.interval is not None:
        check(found.interval, -1.0, 1.0)


def test_none_fewer_of_two_is_no_certainty():
    found = relative_reduction([1.0, 1.0], [0.0, 0.0], paired=True, seed=0)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.0


def test_one_place_makes_intervals():
    """Elsewhere an interval is handed on: nobody constructs one, or takes quantiles of a distribution."""
    found = []
    for path in sorted(
        [*ROOT.glob("papo/**/*.py"), *ROOT.glob("*.py"), *ROOT.glob("scripts/*.py")]
    ):
        if path.is_relative_to(ROOT / "papo" / "statistics"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="Interval" | "NormalDist")):
                    found.append((path.name, node.lineno))
                case ast.ImportFrom(module="scipy.stats") | ast.Constant(value=1.96):
                    found.append((path.name, node.lineno))
                case ast.ImportFrom(module="scipy", names=names):
                    found += [(path.name, node.lineno) for one in names if one.name == "stats"]
    assert found == []
