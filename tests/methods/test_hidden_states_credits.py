"""VGPO and PEPO: what their formulas say, a number at a time, and what they do where there is nothing to see."""

import math
import statistics

import pytest
import torch

from papo.methods import PEPO, VGPO
from papo.objective import Blocks, SettingError
from papo.types import IMAGE, RolloutBatch, ViewScores

NUM_RESPONSES = 3
LENGTHS = (5, 1, 7, 4, 7, 2)
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
BLOCKS = Blocks(num_rollouts=6, num_responses=NUM_RESPONSES, rollouts_per_minibatch=6)
VGPO_SETTINGS = {
    "compensation": 0.3,
    "gate_start": 0.5,
    "gate_share": 0.2,
    "token_least": 0.1,
    "token_most": 2.0,
    "response_least": 0.9,
    "response_most": 2.0,
}


def batch_of(cosines=None, layers=None, entropy=None):
    """Advantages of 1, so that what a credit gives are its factors."""
    generator = torch.Generator().manual_seed(0)

    def drawn(values):
        if values is None:
            values = torch.rand(MASK.shape, generator=generator, dtype=torch.float64) * 0.8 - 0.2
        return values.where(MASK, 0.0)

    seen = ViewScores(
        logprobs=-drawn(None).abs(),
        image_cosine=drawn(cosines),
        image_cosine_layers=drawn(layers),
        entropy=drawn(entropy).abs(),
    )
    return RolloutBatch(
        num_responses=NUM_RESPONSES,
        response_mask=MASK,
        old_logprobs=seen.logprobs,
        advantages=torch.ones(MASK.shape, dtype=torch.float64),
        correct=torch.ones(6, dtype=torch.bool),
        rewards=torch.ones(6),
        old_views={IMAGE: seen},
    )


def constant(value):
    return torch.full(MASK.shape, value, dtype=torch.float64)


def rows_of(values):
    return [row[:length] for row, length in zip(values.tolist(), LENGTHS, strict=True)]


def unit(values):
    low, high = min(values), max(values)
    return [(value - low) / (high - low + 1e-8) for value in values]


def naive_vgpo(cosines):
    """With groups as blocks, and 0 among the cosines."""
    factors = []
    for start in range(0, 6, NUM_RESPONSES):
        group = rows_of(cosines)[start : start + NUM_RESPONSES]
        everything = [0.0, *(value for row in group for value in row)]
        low, high = min(everything), max(everything)
        shares = []
        for row in group:
            scores = [(value - low) / (high - low + 1e-8) for value in row]
            late = scores[int(0.5 * len(row)) :]
            least = sorted(late, reverse=True)[max(1, int(0.2 * len(late))) - 1]
            raised = [
                score * (1 + 0.3 * t / (len(row) - 1 + 1e-8))
                if t >= int(0.5 * len(row)) and score >= least
                else score
                for t, score in enumerate(scores)
            ]
            shares.append(unit(raised))
        sums = unit([sum(row) for row in shares])
        for row, total in zip(shares, sums, strict=True):
            response = min(max(1 + total - statistics.mean(sums), 0.9), 2.0)
            factors.append(
                [min(max(1 + each - statistics.mean(row), 0.1), 2.0) * response for each in row]
            )
    return factors


def naive_pepo(layers, entropy, progress):
    weights = []
    for looks, unsure in zip(rows_of(layers), rows_of(entropy), strict=True):
        scaled = [
            [(v - min(row)) / max(max(row) - min(row), 1e-6) for v in row]
            for row in (looks, unsure)
        ]
        both = [sum(pair) for pair in zip(*scaled, strict=True)]
        mean = statistics.mean(both)
        powers = [
            math.exp(look * (1 + 0.05 * math.tanh(x - mean)) / 1.8)
            for look, x in zip(looks, both, strict=True)
        ]
        weights.append([1 - progress + progress * p / sum(powers) * len(powers) for p in powers])
    return weights


def assert_rows(given, expected):
    for row, theirs in zip(rows_of(given), expected, strict=True):
        assert row == pytest.approx(theirs, rel=1e-9)


def test_vgpo_is_its_formula():
    batch = batch_of()
    given = VGPO(**VGPO_SETTINGS)(batch, BLOCKS, progress=0.0)
    assert_rows(given, naive_vgpo(batch.old_views[IMAGE].image_cosine))


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_pepo_is_its_formula(progress):
    batch = batch_of()
    credit = PEPO(gate=0.05, temperature=1.8)
    given = credit(batch, BLOCKS, progress=progress)
    seen = batch.old_views[IMAGE]
    assert_rows(given, naive_pepo(seen.image_cosine_layers, seen.entropy, progress))
    assert credit.depends_on_progress


@pytest.mark.parametrize("cosine", [0.0, 0.7, -0.3])
def test_where_all_cosines_are_equal_all_tokens_learn_alike(cosine):
    batch = batch_of(constant(cosine), constant(cosine), constant(1.0))
    pepo = PEPO(gate=0.05, temperature=1.8)(batch, BLOCKS, progress=1.0)
    torch.testing.assert_close(pepo.where(MASK, 1.0), constant(1.0))
    if cosine == 0.0:  # as of prompts without a picture
        vgpo = VGPO(**VGPO_SETTINGS)(batch, BLOCKS, progress=0.0)
        torch.testing.assert_close(vgpo.where(MASK, 1.0), constant(1.0))


def test_without_compensation_equal_cosines_change_nothing_in_vgpo():
    credit = VGPO(**{**VGPO_SETTINGS, "compensation": 0.0})
    given = credit(batch_of(constant(0.7)), BLOCKS, progress=0.0)
    torch.testing.assert_close(given.where(MASK, 1.0), constant(1.0))


def test_a_token_alone_has_no_factor_of_its_own():
    batch = batch_of()
    assert float(PEPO(gate=0.05, temperature=1.8)(batch, BLOCKS, progress=1.0)[1, 0]) == 1.0
    alone = {**VGPO_SETTINGS, "response_least": 1.0, "response_most": 1.0}
    assert float(VGPO(**alone)(batch, BLOCKS, progress=0.0)[1, 0]) == 1.0


def test_zero_counts_among_the_cosines_as_padding_does_in_the_code():
    batch = batch_of(
        torch.rand(MASK.shape, generator=torch.Generator().manual_seed(1)).double() + 0.5
    )
    one, other = (
        VGPO(**VGPO_SETTINGS, with_zero=with_zero)(batch, BLOCKS, progress=0.0)
        for with_zero in (True, False)
    )
    assert_rows(one, naive_vgpo(batch.old_views[IMAGE].image_cosine))
    assert (one - other).where(MASK, 0.0).abs().max() > 1e-3


@pytest.mark.parametrize("scope", ["response", "group", "minibatch", "rollout"])
def test_the_scope_of_vgpo_says_which_responses_are_compared(scope):
    batch = batch_of()
    given = VGPO(**VGPO_SETTINGS, scope=scope)(batch, BLOCKS, progress=0.0)
    own = VGPO(**{**VGPO_SETTINGS, "response_least": 1.0, "response_most": 1.0}, scope=scope)
    factors = (given / own(batch, BLOCKS, progress=0.0))[:, 0]
    if scope == "response":
        torch.testing.assert_close(factors, torch.ones(6, dtype=torch.float64))
    else:
        size = 3 if scope == "group" else 6
        assert all(float(block.max()) > 1.0 for block in factors.split(size))
        assert all(float(block.min()) == pytest.approx(0.9) for block in factors.split(size))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: VGPO(**{**VGPO_SETTINGS, "compensation": -1.0}), "compensation"),
        (lambda: VGPO(**{**VGPO_SETTINGS, "gate_start": 1.5}), "gate_start"),
        (lambda: VGPO(**{**VGPO_SETTINGS, "gate_share": 0.0}), "gate_share"),
        (lambda: VGPO(**{**VGPO_SETTINGS, "token_least": 1.1}), "token_least"),
        (lambda: VGPO(**{**VGPO_SETTINGS, "response_most": 0.9}), "response_most"),
        (lambda: VGPO(**VGPO_SETTINGS, schedule="cosine"), "schedule"),
        (lambda: VGPO(**VGPO_SETTINGS, scope="batch"), "scope"),
        (lambda: PEPO(gate=-0.1, temperature=1.0), "gate"),
        (lambda: PEPO(gate=0.1, temperature=0.0), "temperature"),
    ],
)
def test_a_setting_that_is_out_of_its_range_is_refused(make, said):
    with pytest.raises(SettingError, match=said):
        make()
