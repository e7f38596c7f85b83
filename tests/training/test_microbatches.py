"""Cutting a batch into passes: by prompts, by tokens, and what may not change with it."""

import logging

import pytest
import torch
from lab_module import NUM_RESPONSES, lab_module, lab_policy, reward_by_row, train

from papo.training.microbatches import (
    MicrobatchCutter,
    repeated_prefix_tokens,
    shared_prefix_tokens,
)

# Three prompts of 10, 4 and 20 tokens with two responses each: 15, 10 and 22 tokens with shared
# prompts; 26, 16 and 42 where each response repeats its prompt and is padded to the longer one.
PROMPTS, RESPONSES = [10, 4, 20], [2, 3, 4, 2, 1, 1]


def cutter(tokens, count=shared_prefix_tokens):
    return MicrobatchCutter(prompts=None, tokens=tokens, count_tokens=count)


@pytest.mark.parametrize(
    ("tokens", "bounds"),
    [
        (47, [(0, 3)]),
        (46, [(0, 2), (2, 3)]),
        (25, [(0, 2), (2, 3)]),
        (24, [(0, 1), (1, 2), (2, 3)]),
        (1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_consecutive_groups_share_a_pass_within_the_budget(tokens, bounds):
    assert cutter(tokens).bounds(PROMPTS, RESPONSES) == bounds


@pytest.mark.parametrize(
    # All rows of a pass are as long as its longest prompt and response: 4 * 14, then 6 * 24.
    ("tokens", "bounds"),
    [(144, [(0, 3)]), (143, [(0, 2), (2, 3)]), (56, [(0, 2), (2, 3)]), (55, None)],
)
def test_repeated_prompts_count_as_often_as_they_are_read(tokens, bounds):
    expected = bounds or [(0, 1), (1, 2), (2, 3)]
    assert cutter(tokens, repeated_prefix_tokens).bounds(PROMPTS, RESPONSES) == expected


def test_a_group_above_the_budget_goes_alone_and_is_told_once(caplog):
    cut = cutter(21)
    with caplog.at_level(logging.WARNING):
        assert cut.bounds(PROMPTS, RESPONSES) == [(0, 1), (1, 2), (2, 3)]
        cut.bounds(PROMPTS, RESPONSES)
    [record] = caplog.records
    assert "22 tokens" in record.message
    assert "training.tokens_per_microbatch is 21" in record.message


def test_nothing_is_told_within_the_budget(caplog):
    with caplog.at_level(logging.WARNING):
        cutter(22).bounds(PROMPTS, RESPONSES)
    assert not caplog.records


def by_tokens(folder, tokens, **overrides):
    folder.mkdir(exist_ok=True)
    return lab_module(
        folder,
        reward=reward_by_row(NUM_RESPONSES),
        prompts_per_microbatch=None,
        tokens_per_microbatch=tokens,
        beta=0.01,
        **overrides,
    )


@pytest.mark.parametrize("masked_policy", ["old", "current"])
def test_terms_and_gradients_do_not_depend_on_the_budget(tmp_path, masked_policy):
    rows, weights, num_passes = [], [], []
    for tokens in (1, 250, 10**9):
        folder = tmp_path / str(tokens)
        module = by_tokens(folder, tokens, masked_policy=masked_policy, num_rollouts=1)
        # Ends with one plain step of SGD, so equal weights are equal gradients.
        weights.append(train(module, folder))
        rows.append(module.last_step.metrics)
        num_passes.append(len(list(module.collector.microbatches(module.last_step.rollout.batch))))
    assert num_passes[0] == 4 > num_passes[1] > num_passes[2] == 1
    for got_row, got in zip(rows[:2], weights[:2], strict=True):
        for name, value in rows[2].items():
            assert got_row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        for name, value in weights[2].items():
            torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-7)


def test_passes_without_gradient_are_cut_alike(tmp_path, monkeypatch):
    module = by_tokens(tmp_path, 1, masked_policy="old")
    seen = []

    def record(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, **k: (seen.append((name, len(a[0]))), original(*a, **k))[1]
        )

    record(module.collector.reference, "score")
    record(module.collector.look_again, "_score_view")
    module.collector.collect(0, 0, progress=0.0)
    assert seen == [("score", 1)] * 4 + [("_score_view", 1)] * 4


@pytest.mark.parametrize(
    ("scoring", "shares"), [("auto", True), ("split", True), ("twopass", True), ("padded", False)]
)
def test_a_prompt_counts_once_where_scoring_shares_it(tmp_path, scoring, shares):
    module = by_tokens(tmp_path, 1000, policy=lab_policy(scoring=scoring))
    batch = module.collector.collect(0, 0, progress=0.0).batch.select_groups(0, 1)
    prompt, rows = batch.groups[0].prompt_ids.shape[0], batch.response_mask.sum(dim=1)
    expected = prompt + int(rows.sum()) if shares else 4 * (prompt + int(rows.max()))
    cut = module.collector.microbatches
    assert cut.count_tokens([prompt], rows.tolist()) == expected
