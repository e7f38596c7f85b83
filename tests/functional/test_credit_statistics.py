"""papo.functional.credit and .distributions against the definitions, one value at a time, and values by hand."""

import math
import statistics

import pytest
import torch

from papo.functional import (
    ascending_rank,
    detrended,
    discounted_future,
    distributions,
    disturbance,
    k3_dependence,
    largest_factor,
    largest_share,
    mean_one,
    min_max,
    response_means,
    robust_scores,
    shrunk_gaussians,
)

LENGTHS = torch.tensor([6, 1, 4, 2])
MASK = torch.arange(6)[None] < LENGTHS[:, None]


def values(seed=0):
    """Random numbers with NaN at padding: nothing may read it."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(MASK.shape, generator=generator, dtype=torch.float64)
    return drawn.masked_fill(~MASK, math.nan)


def rows(tensor):
    return [row[:n].tolist() for row, n in zip(tensor, LENGTHS.tolist(), strict=True)]


def assert_rows(got, expected):
    for ours, theirs in zip(rows(got), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-10, abs=1e-12)


def test_k3_dependence_by_hand():
    # q = p: 0; q = p/2: 1/2 + log 2 - 1; q = 0: d is cut to -20, and 19 + e^-20 to 10.
    view = torch.tensor([[0.0, -math.log(2), -100.0]], dtype=torch.float64)
    got = k3_dependence(view, torch.zeros_like(view))
    assert got[0].tolist() == pytest.approx([0.0, math.log(2) - 0.5, 10.0])


def test_means_and_ranges_of_a_response():
    drawn = values()
    assert response_means(drawn, MASK).tolist() == pytest.approx(
        [statistics.fmean(row) for row in rows(drawn)]
    )
    spans = [(min(row), max(row)) for row in rows(drawn)]
    assert_rows(
        min_max(drawn, MASK),
        [
            [(x - low) / max(high - low, 1e-8) for x in row]
            for row, (low, high) in zip(rows(drawn), spans, strict=True)
        ],
    )
    assert not min_max(drawn, MASK)[~MASK].any()


def test_weights_have_a_mean_of_one_and_lost_ones_are_one():
    weights = values().abs()
    weights[2] = 0.0
    got = rows(mean_one(weights, MASK))
    assert [statistics.fmean(row) for row in got] == pytest.approx([1.0] * 4)
    assert got[1] == [1.0]
    assert got[2] == [1.0] * 4
    assert got[0][1] / got[0][0] == pytest.approx(float(weights[0, 1] / weights[0, 0]))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.4, 0.99, 1.0])
def test_the_value_at_a_share_of_the_order(share):
    drawn = values()
    expected = [sorted(row)[min(int(share * len(row)), len(row) - 1)] for row in rows(drawn)]
    assert ascending_rank(drawn, MASK, share)[:, 0].tolist() == expected


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("blocks", [None, (slice(0, 2), slice(2, 4)), (slice(0, 4),)])
def test_the_largest_share_of_a_block(share, blocks):
    drawn = values()
    chosen = largest_share(drawn, MASK, share, rows=blocks)
    assert not chosen[~MASK].any()
    for block in blocks or [slice(i, i + 1) for i in range(4)]:
        found = sorted(drawn[block][MASK[block]].tolist(), reverse=True)
        count = math.ceil(round(share * len(found), 9))
        kept = drawn[block][chosen[block]].tolist()
        assert sorted(kept, reverse=True) == found[:count]
    ties = largest_share(torch.zeros_like(drawn), MASK, 0.5)
    assert rows(ties) == [[True] * 3 + [False] * 3, [True], [True] * 2 + [False] * 2, [True, False]]


def test_a_product_that_is_rounded_up_is_no_further_token():
    everything = torch.ones(1, 10, dtype=torch.bool)
    assert 0.1 * 3 * 10 > 3
    assert largest_share(torch.rand(1, 10), everything, 0.1 * 3).sum() == 3


def test_shuffled_ties_are_spread_and_the_same_again():
    mask = torch.ones(40, 10, dtype=torch.bool)
    zeros = torch.zeros(40, 10)
    zeros[5, 5] = 1.0
    chosen, again = (
        largest_share(zeros, mask, 0.3, rows=[slice(0, 40)], shuffles_ties=True) for _ in range(2)
    )
    assert chosen.sum() == 120
    assert torch.equal(chosen, again)
    assert chosen[5, 5]
    assert 40 < chosen[20:].sum() < 80


def test_the_largest_factor_gives_factors_a_mean_of_one():
    shares = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    most = largest_factor(shares, 0.9)
    assert float((0.9 + shares * (most - 0.9)).mean()) == pytest.approx(1.0, abs=1e-7)


def test_robust_scores_take_the_lower_median():
    # Median 2 of 1, 2, 4, 8; distances 1, 0, 2, 6 with median 1.
    got = robust_scores(torch.tensor([4.0, 1.0, 8.0, 2.0], dtype=torch.float64))
    assert got.tolist() == pytest.approx([2.0, -1.0, 6.0, 0.0])
    assert robust_scores(torch.tensor([3.0])).tolist() == [0.0]


@pytest.mark.parametrize(("discount", "window"), [(0.8, 32), (0.5, 2), (1.0, 1)])
def test_the_discounted_future(discount, window):
    drawn = values()
    expected = []
    for row in rows(drawn):
        means = []
        for t in range(len(row)):
            ahead = row[t + 1 : t + 1 + window]
            weights = [discount**k for k in range(len(ahead))]
            total = sum(w * x for w, x in zip(weights, ahead, strict=True))
            means.append(total / sum(weights) if ahead else 0.0)
        expected.append(means)
    assert_rows(discounted_future(drawn, MASK, discount=discount, window=window), expected)


def test_a_trend_is_what_least_squares_finds():
    drawn = values()
    expected = []
    for row in rows(drawn):
        if len(row) < 2:
            expected.append([0.0])
            continue
        slope, intercept = statistics.linear_regression(range(len(row)), row)
        expected.append([x - intercept - slope * t for t, x in enumerate(row)])
    assert_rows(detrended(drawn, MASK), expected)


def naive_ledoit_wolf(points):
    """Ledoit and Wolf (2004), with loops."""
    n, p = points.shape
    centred = points - points.mean(0)
    sample = centred.T @ centred / n
    mean = torch.trace(sample) / p
    target = mean * torch.eye(p, dtype=points.dtype)
    distance = (sample - target).square().sum()
    noise = sum((torch.outer(x, x) - sample).square().sum() for x in centred) / n**2
    shrinkage = min(noise, distance) / distance if distance > 0 else 0.0
    return (1 - shrinkage) * sample + shrinkage * target


def test_gaussians_of_classes_are_those_of_ledoit_and_wolf():
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(60, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 4.0])
    points[:, 1] += points[:, 0]
    classes = torch.randint(0, 4, (60,), generator=generator)
    classes[classes == 2] = 1
    counts, means, covariances = shrunk_gaussians(points, classes, 4)
    assert counts.tolist() == torch.bincount(classes, minlength=4).tolist()
    for kind in (0, 1, 3):
        own = points[classes == kind]
        torch.testing.assert_close(means[kind], own.mean(0))
        torch.testing.assert_close(covariances[kind], naive_ledoit_wolf(own))
    assert not means[2].any()
    assert not covariances[2].any()
    _, _, [flat] = shrunk_gaussians(torch.ones(5, 2), torch.zeros(5, dtype=torch.long), 1)
    assert not flat.any()


def test_disturbance_by_hand():
    # Scaled: d 0, 1, 1/2; the rises -1, 1, 0 change 1, 1, 0 and rise 0, 1, 0; entropy 0, 1/2, 1.
    one = torch.ones(1, 3, dtype=torch.bool)
    parts = [torch.tensor([row]) for row in ([0.0, 2.0, 1.0], [-1.0, 1.0, 0.0], [1.0, 2.0, 3.0])]
    expected = {
        "A": [0.0, 1.0, 1.0],
        "B": [0.0, 1.0, 0.0],
        "C": [0.0, 0.5, 1 - math.sqrt(0.5)],
        "D": [0.0, 0.5, 1 - math.sqrt(0.5)],
        "E": [1.0, 1.0, 1 - math.sqrt(0.5)],
        "F": [0.0, 0.5, 0.25],
        "G": [0.0, 0.5, 0.0],
    }
    for score, numbers in expected.items():
        got = disturbance(*parts, one, score=score, alpha=0.5)
        assert got[0].tolist() == pytest.approx(numbers), score


def naive_entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def naive_kl(p, q):
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)


def test_distributions_match_their_definitions():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64) * 3
    log_p, log_q = logits.log_softmax(-1)
    mixture = [
        [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        for p, q in zip(log_p.exp().tolist(), log_q.exp().tolist(), strict=True)
    ]
    ps, qs = log_p.exp().tolist(), log_q.exp().tolist()
    assert distributions.entropy(log_p).tolist() == pytest.approx([naive_entropy(p) for p in ps])
    assert distributions.kl_divergence(log_p, log_q).tolist() == pytest.approx(
        [naive_kl(p, q) for p, q in zip(ps, qs, strict=True)]
    )
    assert distributions.jensen_shannon_divergence(log_p, log_q).tolist() == pytest.approx(
        [(naive_kl(p, m) + naive_kl(q, m)) / 2 for p, q, m in zip(ps, qs, mixture, strict=True)]
    )
    for mass in (0.5, 0.95, 1.0):
        expected = []
        for p in ps:
            kept = []
            for x in sorted(p, reverse=True):
                if sum(kept) >= mass:
                    break
                kept.append(x)
            expected.append(naive_entropy([x / sum(kept) for x in kept]))
        got = distributions.nucleus_entropy(log_p, mass=mass).tolist()
        assert got == pytest.approx(expected)


def test_distributions_with_tokens_that_never_come():
    never = -math.inf
    log_p = torch.tensor([[0.0, never], [math.log(0.5), math.log(0.5)]], dtype=torch.float64)
    log_q = torch.tensor([[math.log(0.5), math.log(0.5)], [0.0, never]], dtype=torch.float64)
    assert distributions.entropy(log_p).tolist() == pytest.approx([0.0, math.log(2)])
    assert distributions.nucleus_entropy(log_p).tolist() == pytest.approx([0.0, math.log(2)])
    assert distributions.kl_divergence(log_p, log_q).tolist() == pytest.approx(
        [math.log(2), math.inf]
    )
    both = distributions.jensen_shannon_divergence(log_p, log_q)
    assert torch.isfinite(both).all()
    assert float(both[0]) == pytest.approx(float(both[1]))
    apart = torch.tensor([[0.0, never]]), torch.tensor([[never, 0.0]])
    assert float(distributions.jensen_shannon_divergence(*apart)) == pytest.approx(math.log(2))
