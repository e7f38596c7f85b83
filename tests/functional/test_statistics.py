"""Every interval and test against a naive computation, a published number, or simulated truth."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from papo.statistics import (
    benjamini_hochberg,
    bootstrap_mean,
    bootstrap_mean_of_means,
    bootstrap_ratio,
    bowker_test,
    cohen_kappa,
    is_majority,
    mcnemar_exact,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_t,
    pass_at_k,
    ratio_of_means,
    relative_reduction,
    t_interval,
    unseen_share,
    wilson_interval,
)


def ends(interval):
    return (interval.low, interval.high)


def naive_bootstrap_means(values, rng, resamples=4000):
    return [np.mean([values[rng.integers(len(values))] for _ in values]) for _ in range(resamples)]


# --- the bootstrap


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0, 1.0, 0.5, 0.25, 0.75, 0.0, 1.0, 0.1, 0.2],  # all but distinct: drawn by index
        [0.0] * 30 + [1.0] * 12 + [0.5] * 8,  # few values: drawn as counts
    ],
)
def test_the_interval_of_a_mean_is_that_of_a_naive_bootstrap(values):
    naive = naive_bootstrap_means(values, np.random.default_rng(0))
    interval = bootstrap_mean(values, seed=1)
    assert interval.value == pytest.approx(np.mean(values))
    assert ends(interval) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.02)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = list(np.random.default_rng(0).random(50))
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    # Items with k = 4 responses whose chance of being right differs from item to item: mean 0.4.
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        chances = rng.beta(2, 3, size=80)
        shares = rng.binomial(4, chances) / 4
        interval = bootstrap_mean(shares.tolist(), seed=trial)
        covered += interval.low <= 0.4 <= interval.high
    # 95 % of 300 is 285 with a standard deviation of 3.8; percentile intervals fall short a little.
    assert 271 <= covered <= 297


def test_where_all_items_agree_the_interval_of_a_share_is_clopper_and_pearsons():
    interval = bootstrap_mean([1.0] * 100, seed=0)
    assert (interval.value, interval.high) == (1.0, 1.0)
    exact = stats.binomtest(100, 100).proportion_ci(0.95, method="exact")
    assert interval.low == pytest.approx(exact.low)
    exact = stats.binomtest(0, 100).proportion_ci(0.99, method="exact")
    assert bootstrap_mean([0.0] * 100, seed=0, level=0.99).high == pytest.approx(exact.high)
    assert ends(bootstrap_mean([0.0], seed=0)) == pytest.approx((0.0, 0.975))


def test_two_items_say_little_of_a_share():
    # A share of 1 - sqrt(0.025) = 0.842 may be of a kind that two draws did not show.
    assert unseen_share(2) == pytest.approx(1 - math.sqrt(0.025))
    low, high = ends(bootstrap_mean([0.25, 0.5], seed=0))
    assert (low, high) == pytest.approx((0.375 * 0.158114, 0.375 + 0.625 * 0.841886), abs=1e-5)


def test_items_of_a_kind_that_six_others_show_add_nothing_to_the_bootstrap():
    values = [0.0] * 30 + [1.0] * 6
    found = bootstrap_mean(values, seed=0)
    naive = np.quantile(
        np.random.default_rng(1).binomial(36, 1 / 6, size=10_000) / 36, [0.025, 0.975]
    )
    assert ends(found) == pytest.approx(tuple(naive), abs=0.03)
    five = bootstrap_mean(values[:-1], seed=0)
    assert five.high >= 5 / 35 + unseen_share(35) * 30 / 35


def test_a_mean_over_benchmarks_weighs_them_equally_and_varies_within_each():
    # One benchmark of 400 items with variance 1/4, and one of next to none: the error of the mean of
    # both is half the error of the first, 0.5 * sqrt(0.25 / 400) = 0.0125.
    groups = [[0.0, 1.0] * 200, [0.5, 0.5001] * 10]
    interval = bootstrap_mean_of_means(groups, seed=0)
    assert interval.value == pytest.approx(0.5, abs=1e-4)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.0125, rel=0.05)


def test_a_benchmark_whose_items_agree_adds_what_they_leave_open():
    # Ten items at 1/2 leave open 1/2 -/+ 1/2 * (1 - 0.025 ** 0.1); the mean of two such, over sqrt(2).
    reach = 0.5 * unseen_share(10)
    groups = [[0.5] * 10, [0.5] * 10]
    apart = bootstrap_mean_of_means(groups, seed=0)
    assert ends(apart) == pytest.approx((0.5 - reach / 2**0.5, 0.5 + reach / 2**0.5))
    shared = bootstrap_mean_of_means(groups, names=[range(10), range(10)], seed=0)
    assert ends(shared) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_without_shared_names_every_group_is_resampled_on_its_own():
    groups = [[0.0, 1.0, 0.5] * 20, [0.2, 0.9]]
    apart = bootstrap_mean_of_means(groups, names=[list(range(60)), ["a", "b"]], seed=3)
    assert ends(apart) == ends(bootstrap_mean_of_means(groups, seed=3))


def test_a_group_that_is_counted_twice_adds_no_certainty():
    items = [0.0, 1.0, 0.5, 1.0] * 10
    alone = bootstrap_mean_of_means([items], seed=0)
    twice = bootstrap_mean_of_means([items, items], names=[range(40), range(40)], seed=0)
    assert ends(twice) == pytest.approx(ends(alone))
    independent = bootstrap_mean_of_means([items, items], seed=0)
    assert independent.high - independent.low == pytest.approx(
        (alone.high - alone.low) / math.sqrt(2), rel=0.1
    )


def test_a_name_that_a_group_holds_twice_is_two_items():
    items = [0.0, 1.0, 0.25, 0.75]
    same = bootstrap_mean_of_means([items], names=[["a", "a", "b", "b"]], seed=0)
    assert ends(same) == ends(bootstrap_mean_of_means([items], seed=0))


def test_intervals_of_benchmarks_that_share_problems_cover_as_often_as_they_say(monkeypatch):
    """mathverse and mathverse_v: 60 problems, 40 of which are the other benchmark, asked anew."""
    monkeypatch.setattr("papo.statistics.resampling.RESAMPLES", 800)
    rng = np.random.default_rng(1)
    # Mean chances of 2/3 for the shared problems and 1/2 for the others.
    truth = ((40 * 2 / 3 + 20 / 2) / 60 + 2 / 3) / 2
    names = [[*range(60)], [*range(40)]]
    covered = {"shared": 0, "independent": 0}
    for _ in range(400):
        chances = np.concatenate([rng.beta(2, 1, size=40), rng.beta(1, 1, size=20)])
        groups = [rng.binomial(8, chances) / 8, rng.binomial(8, chances[:40]) / 8]
        values = [group.tolist() for group in groups]
        for way, known in (("shared", names), ("independent", None)):
            found = bootstrap_mean_of_means(values, names=known, seed=0)
            covered[way] += found.low <= truth <= found.high
    # 400 trials of 95 % have a standard error of 1.1 %.
    assert 0.92 <= covered["shared"] / 400 <= 0.98, covered
    assert covered["independent"] / 400 < 0.90, covered


def test_a_paired_interval_is_that_of_the_differences():
    rng = np.random.default_rng(0)
    first = rng.binomial(8, 0.4, size=60) / 8
    second = np.clip(first + rng.choice([-0.25, 0.0, 0.3], size=60), 0, 1)
    found = paired_bootstrap(first.tolist(), second.tolist(), seed=1)
    naive = naive_bootstrap_means(list(second - first), rng)
    assert found.interval.value == pytest.approx((second - first).mean())
    assert ends(found.interval) == pytest.approx(
        tuple(np.quantile(naive, [0.025, 0.975])), abs=0.01
    )
    # About the normal test of the same differences, which resampling approximates.
    z = (second - first).mean() / ((second - first).std() / math.sqrt(60))
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)
    assert 0.02 < found.p_value < 0.6


def test_pairing_sees_what_two_separate_intervals_would_miss():
    # Items differ a lot from one another, and the second run is right a little more often on many.
    rng = np.random.default_rng(2)
    first = rng.random(200) * 0.9
    second = first + rng.random(200) * 0.1
    found = paired_bootstrap(first.tolist(), second.tolist(), seed=0)
    assert found.interval.low > 0.04
    assert found.p_value < 0.001
    separate = [bootstrap_mean(run.tolist(), seed=0) for run in (first, second)]
    assert separate[0].high > separate[1].low


def test_two_runs_that_do_not_differ_are_told_apart_as_seldom_as_the_level_says():
    rng = np.random.default_rng(7)
    small = 0
    for trial in range(300):
        first, second = (rng.binomial(4, 0.5, size=(2, 60)) / 4).tolist()
        small += paired_bootstrap(first, second, seed=trial).p_value <= 0.05
    # 5 % of 300 is 15 with a standard deviation of 3.8.
    assert 4 <= small <= 29


def test_a_few_items_never_prove_a_difference():
    # Three items that differ, all the same way: a test of signs gives 2 * (1/2)^3 = 1/4.
    assert paired_bootstrap([0.0] * 3, [1.0] * 3, seed=0).p_value == 0.25
    assert paired_bootstrap([0.0] * 9, [1.0, 1.0, 0.5] + [0.0] * 6, seed=0).p_value >= 0.25
    assert paired_bootstrap([0.0], [1.0], seed=0).p_value == 1.0


def test_runs_that_agree_on_every_item_are_not_known_to_agree_on_all():
    found = paired_bootstrap([0.5] * 100, [0.5] * 100, seed=0)
    assert found.p_value == 1.0
    assert ends(found.interval) == pytest.approx((-unseen_share(100), unseen_share(100)))


def test_swapping_two_runs_turns_the_sign():
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 40)).tolist()
    forward = paired_bootstrap(first, second, seed=0)
    backward = paired_bootstrap(second, first, seed=0)
    assert forward.interval.value == pytest.approx(-backward.interval.value)
    assert forward.interval.low == pytest.approx(-backward.interval.high)
    assert forward.p_value == pytest.approx(backward.p_value)


def test_the_interval_of_a_ratio_is_that_of_a_naive_bootstrap_of_both_means_together():
    rng = np.random.default_rng(0)
    below = rng.random(50) + 0.5
    above = below * 0.6 + rng.random(50) * 0.1
    found = bootstrap_ratio(above.tolist(), below.tolist(), seed=0)
    naive = []
    for _ in range(4000):
        rows = rng.integers(50, size=50)
        naive.append(above[rows].sum() / below[rows].sum())
    assert found.value == pytest.approx(above.sum() / below.sum())
    assert ends(found) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.005)


def test_the_reduction_of_perception_errors_that_the_paper_reports():
    # 134 of 200 errors down to 93 of 200: 30.6 %; the delta method on the logarithm of the ratio
    # gives the unpaired interval.
    first, second = [1.0] * 134 + [0.0] * 66, [1.0] * 93 + [0.0] * 107
    found = relative_reduction(first, second, paired=False, seed=0)
    spread = 1.96 * math.sqrt(66 / (134 * 200) + 107 / (93 * 200))
    delta = [1 - 93 / 134 * math.exp(sign * spread) for sign in (1, -1)]
    assert found.value == pytest.approx(1 - 93 / 134)
    assert ends(found) == pytest.approx(delta, abs=0.015)
    assert ends(found) == pytest.approx((0.17, 0.42), abs=0.02)


def test_a_paired_reduction_is_surer_where_the_same_items_are_concerned():
    # Every error of the second run is one of the first's: 93 of its 134.
    first, second = [1.0] * 134 + [0.0] * 66, [1.0] * 93 + [0.0] * 107
    paired = relative_reduction(first, second, paired=True, seed=0)
    unpaired = relative_reduction(first, second, paired=False, seed=0)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)
    # Given 134 errors, 41 are gone: a share with the interval of a share.
    wilson = wilson_interval(41, 134)
    assert ends(paired) == pytest.approx(ends(wilson), abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([], seed=0), "at least one item"),
        (lambda: bootstrap_mean([1.0, math.nan], seed=0), "finite"),
        (lambda: bootstrap_mean([1.0, 2.0], seed=0), "between 0 and 1"),
        (lambda: bootstrap_mean_of_means([], seed=0), "at least one group"),
        (lambda: bootstrap_mean_of_means([[1.0], []], seed=0), "at least one item"),
        (lambda: paired_bootstrap([1.0], [1.0, 0.0], seed=0), "got 1 and 2"),
        (lambda: bootstrap_ratio([1.0], [0.0], seed=0), "positive mean"),
        (lambda: relative_reduction([0.0], [1.0], paired=False, seed=0), "positive mean"),
        (lambda: relative_reduction([1.0], [1.0, 1.0], paired=True, seed=0), "got 2 and 1"),
    ],
)
def test_what_cannot_be_resampled_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- shares


@pytest.mark.parametrize(("hits", "trials"), [(134, 200), (0, 20), (20, 20), (1, 3)])
def test_wilsons_interval_is_where_the_score_test_no_longer_rejects(hits, trials):
    # The ends solve (p_hat - p)^2 = z^2 p (1 - p) / n: a quadratic in p.
    z, share = stats.norm.ppf(0.975), hits / trials
    roots = np.roots([1 + z**2 / trials, -(2 * share + z**2 / trials), share**2]).real
    interval = wilson_interval(hits, trials)
    assert ends(interval) == pytest.approx(tuple(sorted(roots)), abs=1e-9)
    assert interval.value == share


def test_wilsons_interval_of_the_papers_perception_share():
    assert ends(wilson_interval(134, 200)) == pytest.approx((0.602, 0.731), abs=5e-4)


@pytest.mark.parametrize(("hits", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_an_impossible_share_is_refused(hits, trials):
    with pytest.raises(ValueError, match="0 <= hits <= trials"):
        wilson_interval(hits, trials)


@pytest.mark.parametrize(("n", "c", "k"), [(8, 3, 1), (8, 3, 4), (5, 0, 2), (5, 5, 3), (6, 5, 2)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_response(n, c, k):
    responses = [True] * c + [False] * (n - c)
    draws = list(itertools.combinations(responses, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("k", [0, 9])
def test_pass_at_more_than_was_sampled_is_refused(k):
    with pytest.raises(ValueError, match=f"k={k} of 8"):
        pass_at_k(8, 2, k)


def test_a_majority_is_more_than_half_and_a_tie_is_none():
    assert [is_majority(hits, 4) for hits in range(5)] == [False, False, False, True, True]
    assert is_majority(1, 1)
    assert not is_majority(0, 1)


# --- tests


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    # The first three are printed by Perception-R1 (arXiv:2506.07218).
    [(1, 5, 0.2188), (2, 4, 0.6875), (2, 10, 0.0386), (10, 2, 0.0386), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_mcnemars_exact_test_gives_the_published_values(only_first, only_second, p_value):
    assert mcnemar_exact(only_first, only_second) == pytest.approx(p_value, abs=5e-5)


@pytest.mark.parametrize(("only_first", "only_second"), [(1, 5), (4, 9), (0, 3)])
def test_mcnemars_exact_test_is_twice_the_smaller_tail(only_first, only_second):
    n = only_first + only_second
    tail = sum(math.comb(n, i) for i in range(min(only_first, only_second) + 1)) / 2**n
    assert mcnemar_exact(only_first, only_second) == pytest.approx(min(1.0, 2 * tail))


def naive_bowker(table):
    statistic, degrees = 0.0, 0
    for i in range(len(table)):
        for j in range(i):
            if table[i][j] + table[j][i]:
                statistic += (table[i][j] - table[j][i]) ** 2 / (table[i][j] + table[j][i])
                degrees += 1
    return statistic, degrees


def test_bowkers_test_is_its_definition():
    table = [[20, 10, 5], [3, 30, 15], [0, 5, 40]]
    found = bowker_test(table)
    statistic, degrees = naive_bowker(table)
    assert (found.statistic, found.degrees_of_freedom) == (pytest.approx(statistic), degrees)
    assert found.p_value == pytest.approx(1 - stats.chi2.cdf(statistic, 3))


def test_bowkers_test_of_two_categories_is_mcnemars_test():
    # (10 - 2)^2 / 12 = 5.33, the square of a normal deviate.
    found = bowker_test([[50, 10], [2, 38]])
    assert found.statistic == pytest.approx(64 / 12)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(8 / math.sqrt(12)))


def test_categories_between_which_nothing_moves_are_no_evidence():
    without = bowker_test([[5, 4], [1, 5]])
    with_empty = bowker_test([[5, 4, 0], [1, 5, 0], [0, 0, 9]])
    assert without == with_empty
    assert bowker_test([[5, 0], [0, 5]]).p_value == 1.0


def test_even_moves_look_uneven_as_seldom_as_the_level_says():
    rng = np.random.default_rng(0)
    chances = np.array([[0.3, 0.1, 0.05], [0.1, 0.1, 0.1], [0.05, 0.1, 0.1]])
    tables = rng.multinomial(400, chances.ravel(), size=1000).reshape(-1, 3, 3)
    rejected = sum(bowker_test(table).p_value <= 0.05 for table in tables.tolist())
    # 50 with a standard deviation of 6.9.
    assert 29 <= rejected <= 71


@pytest.mark.parametrize(
    ("table", "message"), [([[1, 2]], "square"), ([[1, -2], [0, 1]], "counts")]
)
def test_a_table_that_counts_no_moves_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        bowker_test(table)


def test_false_discovery_control_on_the_original_example():
    # Benjamini and Hochberg 1995, section 4.1: 15 tests; at 0.05 the four smallest are rejected.
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p_values += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    q_values = benjamini_hochberg(p_values)
    assert [q <= 0.05 for q in q_values] == [True] * 4 + [False] * 11
    naive = [
        min(p * 15 / rank for rank, p in enumerate(p_values, 1) if rank >= r) for r in range(1, 16)
    ]
    assert q_values == pytest.approx(naive)
    assert benjamini_hochberg(p_values[::-1]) == pytest.approx(naive[::-1])
    assert benjamini_hochberg([]) == []


# --- agreement


def test_kappa_of_a_worked_table():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen_kappa(first, second, seed=0)
    assert found.value == pytest.approx(0.4)
    # The large-sample error of Fleiss, Cohen and Everitt (1969) is 0.127 here.
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(0.127, abs=0.01)


def test_kappa_is_its_definition_for_several_labels():
    rng = np.random.default_rng(0)
    first = rng.choice(["a", "b", "c"], size=40).tolist()
    second = [one if rng.random() < 0.6 else "c" for one in first]
    observed = sum(x == y for x, y in zip(first, second, strict=True)) / 40
    expected = sum(first.count(label) * second.count(label) for label in "abc") / 1600
    found = cohen_kappa(first, second, seed=0)
    assert found.value == pytest.approx((observed - expected) / (1 - expected))
    resampled = []
    for _ in range(2000):
        rows = rng.integers(40, size=40)
        x, y = [first[i] for i in rows], [second[i] for i in rows]
        p_o = sum(a == b for a, b in zip(x, y, strict=True)) / 40
        p_e = sum(x.count(label) * y.count(label) for label in "abc") / 1600
        resampled.append((p_o - p_e) / (1 - p_e))
    assert ends(found) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])), abs=0.03)


def test_kappa_is_one_for_raters_who_agree_and_near_zero_for_raters_who_guess():
    labels = ["a", "b", "b", "c"] * 10
    assert cohen_kappa(labels, labels, seed=0).value == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    first, second = rng.integers(3, size=(2, 2000)).tolist()
    assert abs(cohen_kappa(first, second, seed=0).value) < 0.06


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [], "at least one item"),
        (["a"], ["a", "b"], "got 1 and 2"),
        (["a", "a"], ["a", "a"], "at least two labels"),
    ],
)
def test_labels_without_a_kappa_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        cohen_kappa(first, second, seed=0)


# --- seeds


def test_a_t_interval_is_the_textbooks():
    # t(0.975; 2) = 4.302653 times the standard error 1 / sqrt(3).
    found = t_interval([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert ends(found) == pytest.approx((2.0 - 2.484138, 2.0 + 2.484138), abs=1e-5)
    assert t_interval([1.0]) is None
    assert t_interval([0.3, 0.3]) is None
    assert ends(t_interval([1.0, 2.0, 3.0], bounds=(0.0, 4.0))) == (0.0, 4.0)
    with pytest.raises(ValueError):
        t_interval([])


def test_the_ratio_of_means_is_welchs_test_of_logarithms():
    # Numbers whose spread is small beside their mean: the logarithms' t interval is nearly the same.
    rng = np.random.default_rng(0)
    first, second = rng.normal(20, 0.4, size=12), rng.normal(25, 0.2, size=7)
    found = ratio_of_means(first.tolist(), second.tolist())
    welch = stats.ttest_ind(np.log(second), np.log(first), equal_var=False).confidence_interval()
    assert found.value == pytest.approx(second.mean() / first.mean())
    assert ends(found) == pytest.approx((math.exp(welch.low), math.exp(welch.high)), rel=1e-3)
    assert ratio_of_means([20.0], [25.0, 26.0]) is None
    assert ratio_of_means([20.0, 20.0], [25.0, 25.0]) is None
    with pytest.raises(ValueError, match="positive means"):
        ratio_of_means([0.0, 0.0], [1.0, 2.0])


def test_a_paired_t_test_over_seeds_is_the_textbooks():
    # Differences 2, 4, 6: mean 4, standard error 2 / sqrt(3); t_{0.975, 2} = 4.3027.
    found = paired_t([1.0, 1.0, 1.0], [3.0, 5.0, 7.0])
    reach = 4.302653 * 2 / math.sqrt(3)
    assert ends(found.interval) == pytest.approx((4 - reach, 4 + reach), abs=1e-5)
    assert found.p_value == pytest.approx(stats.ttest_1samp([2.0, 4.0, 6.0], 0.0).pvalue)


def test_student_s_sleep_data():
    # Student 1908, table of additional hours of sleep, the paired example: t = 4.0621, p = 0.002833.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_t(first, second)
    assert found.value == pytest.approx(1.58)
    assert ends(found.interval) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.p_value == pytest.approx(0.002833, abs=1e-6)


def test_seeds_that_all_differ_alike_prove_no_more_than_their_signs():
    same = paired_t([0.1, 0.2], [0.1, 0.2])
    assert (same.value, same.number, same.interval, same.p_value) == (0.0, 2, None, 1.0)
    shifted = paired_t([0.1, 0.2, 0.4], [0.4, 0.5, 0.7])
    assert shifted.value == pytest.approx(0.3)
    assert shifted.interval is None
    # Three differences of one sign: 2 * (1/2)^3.
    assert shifted.p_value == 0.25


def test_an_interval_of_a_difference_of_shares_is_one_of_shares():
    found = paired_t([0.1, 0.2], [0.9, 0.4], bounds=(-1.0, 1.0))
    assert ends(found.interval) == (-1.0, 1.0)


def test_the_detectable_difference_is_cohens():
    # 34 pairs find a mean of half a standard deviation with power 0.808 (Cohen 1988; G*Power).
    differences = np.random.default_rng(0).normal(size=34)
    found = minimum_detectable_difference(differences.tolist(), power=0.8077775)
    assert found / differences.std(ddof=1) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(("num_seeds", "power"), [(3, 0.8), (6, 0.9)])
def test_a_detectable_difference_is_detected_as_often_as_promised(num_seeds, power):
    rng = np.random.default_rng(1)
    pilot = rng.normal(size=num_seeds)
    pilot /= pilot.std(ddof=1)
    effect = minimum_detectable_difference(pilot.tolist(), power=power)
    samples = rng.normal(effect, 1.0, size=(20_000, num_seeds))
    detected = (stats.ttest_1samp(samples, 0.0, axis=1).pvalue <= 0.05).mean()
    assert detected == pytest.approx(power, abs=0.012)


def test_without_spread_no_difference_is_known_to_be_detectable():
    assert minimum_detectable_difference([1.0, 1.0]) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_t([1.0], [2.0]), "at least two seeds"),
        (lambda: paired_t([1.0, 2.0], [2.0]), "got 2 and 1"),
        (lambda: paired_t([1.0, math.nan], [2.0, 1.0]), "finite"),
        (lambda: minimum_detectable_difference([1.0]), "at least two seeds"),
        (lambda: minimum_detectable_difference([1.0, 2.0], power=0.04), "power"),
        (lambda: minimum_detectable_difference([1.0, 2.0], power=1.0), "power"),
    ],
)
def test_what_seeds_cannot_say_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
