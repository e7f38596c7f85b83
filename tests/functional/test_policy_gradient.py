import math

import pytest
import torch

from papo.functional import (
    clip_events,
    clipped_surrogate,
    group_advantages,
    linear_decay,
    most_dependent_tokens,
    restricted_perception_kl,
    sequence_mean,
    token_mean,
    zero_padding,
)

MASK = torch.tensor([[True, True, True], [True, False, False]])
VALUES = torch.tensor([[1.0, 2.0, 6.0], [5.0, 100.0, 100.0]], dtype=torch.float64)


def test_the_two_averages_by_hand():
    # tokens: (1+2+6+5)/4 = 3.5;  sequences: ((1+2+6)/3 + 5/1)/2 = 4
    assert token_mean(VALUES, MASK, num_tokens=4, count_epsilon=0.0).item() == 3.5
    assert sequence_mean(VALUES, MASK, num_rollouts=2, count_epsilon=0.0).item() == 4.0


def test_averages_divide_by_the_counts_they_are_given():
    assert token_mean(VALUES, MASK, num_tokens=14, count_epsilon=0.0).item() == 1.0
    assert sequence_mean(VALUES, MASK, num_rollouts=8, count_epsilon=0.0).item() == 1.0


def test_the_count_epsilon_survives_in_float64():
    got = sequence_mean(VALUES, MASK, num_rollouts=2, count_epsilon=1e-8).item()
    assert got == (9 / (3 + 1e-8) + 5 / (1 + 1e-8)) / 2
    assert token_mean(VALUES, MASK, num_tokens=4, count_epsilon=1e-8).item() == 14 / (4 + 1e-8)


def test_averages_ignore_nan_at_padding_in_value_and_gradient():
    for average in (
        lambda v: token_mean(v, MASK, num_tokens=4, count_epsilon=0.0),
        lambda v: sequence_mean(v, MASK, num_rollouts=2, count_epsilon=0.0),
    ):
        values = VALUES.masked_fill(~MASK, float("nan")).requires_grad_()
        (grad,) = torch.autograd.grad(average(values), values)
        assert torch.isfinite(average(values))
        assert (grad[~MASK] == 0.0).all()


def test_zero_padding_selects():
    nan = VALUES.masked_fill(~MASK, float("nan"))
    assert (zero_padding(nan, MASK)[~MASK] == 0.0).all()
    torch.testing.assert_close(zero_padding(nan, MASK)[MASK], VALUES[MASK])


def test_advantages_match_the_definition():
    rewards = torch.tensor([1.0, 0.1, 0.1, 0.0, 1.0, 0.1], dtype=torch.float64)
    expected = []
    for group in (rewards.tolist()[:3], rewards.tolist()[3:]):
        mean = sum(group) / 3
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / 2)
        expected += [(r - mean) / (std + 1e-6) for r in group]
    got = group_advantages(rewards, num_responses=3, epsilon=1e-6)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.3, 1 / 3, 0.9, 1.0, 1e-30, -0.7, 1e6 + 0.1])
def test_equal_rewards_have_no_advantage_in_groups_of_any_size(reward, dtype):
    for num_responses in range(2, 65):
        for epsilon in (1e-6, 1e-8):
            # Beside a group that has something to compare: each is decided by itself.
            rewards = torch.full((2 * num_responses,), reward, dtype=dtype)
            rewards[0] = reward + 1.0
            got = group_advantages(rewards, num_responses=num_responses, epsilon=epsilon)
            assert (got[num_responses:] == 0.0).all(), (num_responses, epsilon)
            assert (got[:num_responses] != 0.0).any()


def test_nearly_equal_rewards_keep_the_advantage_of_the_definition():
    # Deviations of +-5e-4 around the mean, unbiased std 1e-3 / sqrt 2: no tolerance calls them equal.
    got = group_advantages(
        torch.tensor([0.1, 0.101], dtype=torch.float64), num_responses=2, epsilon=1e-6
    )
    expected = 5e-4 / (1e-3 / math.sqrt(2) + 1e-6)
    torch.testing.assert_close(
        got, torch.tensor([-expected, expected], dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_a_reward_that_is_no_number_is_never_hidden_by_its_group():
    got = group_advantages(torch.full((4,), float("nan")), num_responses=4, epsilon=1e-6)
    assert torch.isnan(got).all()


def test_advantages_need_two_responses_and_name_the_key():
    with pytest.raises(ValueError, match=r"rollout\.num_responses"):
        group_advantages(torch.ones(4), num_responses=1, epsilon=1e-6)
    with pytest.raises(ValueError, match="whole groups"):
        group_advantages(torch.ones(4), num_responses=3, epsilon=1e-6)


def naive_surrogate(ratio, advantage, low, high, dual):
    clipped = min(max(ratio, 1 - low), 1 + high)
    gain = min(ratio * advantage, clipped * advantage)
    if advantage < 0 and dual is not None:
        gain = max(gain, dual * advantage)
    return -gain


@pytest.mark.parametrize("dual", [None, 3.0])
def test_the_surrogate_matches_its_definition_and_its_clips(dual):
    ratios = torch.tensor([[0.1, 0.79, 1.0, 1.31, 5.0]] * 2, dtype=torch.float64)
    advantages = torch.tensor([2.0, -0.5], dtype=torch.float64)
    of_tokens = advantages[:, None].expand_as(ratios)
    logprobs = ratios.log().requires_grad_()
    old = torch.zeros_like(ratios)
    loss = clipped_surrogate(
        logprobs, old, of_tokens, clip_low=0.2, clip_high=0.3, dual_clip=dual, log_ratio_max=20.0
    )
    expected = [
        [naive_surrogate(r, a, 0.2, 0.3, dual) for r in row]
        for row, a in zip(ratios.tolist(), advantages.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14
    )
    (grad,) = torch.autograd.grad(loss.sum(), logprobs)
    events = clip_events(
        logprobs.detach(), old, of_tokens, clip_low=0.2, clip_high=0.3, dual_clip=dual
    )
    held = events.low | events.high | events.dual
    assert (grad[held] == 0.0).all()
    assert (grad[~held] != 0.0).all()
    assert events.high.tolist() == [[False, False, False, True, True], [False] * 5]
    assert events.low.tolist() == [[False] * 5, [True, True, False, False, False]]
    assert events.dual.tolist() == [[False] * 5, [False, False, False, False, dual is not None]]


def test_top_p_keeps_the_most_dependent_share_of_each_response():
    # Five tokens, top_p 0.4: the threshold is the 0.6 quantile, at index 0.6 * 4 = 2.4 of the
    # sorted values, 3 + 0.4 * (4 - 3) = 3.4, so 4 and 5 stay. One token is its own quantile.
    token_kl = torch.tensor([[5.0, 1.0, 4.0, 2.0, 3.0], [7.0, 99.0, 99.0, 99.0, 99.0]])
    mask = torch.tensor([[True] * 5, [True, False, False, False, False]])
    kept = most_dependent_tokens(token_kl, mask, top_p=0.4)
    assert kept.tolist() == [
        [True, False, True, False, False],
        [True, False, False, False, False],
    ]


def test_restrictions_zero_what_does_not_count_and_cut_the_rest():
    token_kl = torch.tensor([[5.0, 1.0], [3.0, 2.0]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    everything = restricted_perception_kl(token_kl, mask, counted=None, top_p=None, maximum=None)
    assert everything.tolist() == token_kl.tolist()
    gated = restricted_perception_kl(
        token_kl, mask, counted=torch.tensor([False, True]), top_p=None, maximum=2.5
    )
    assert gated.tolist() == [[0.0, 0.0], [2.5, 2.0]]
    top = restricted_perception_kl(token_kl, mask, counted=None, top_p=0.5, maximum=None)
    assert top.tolist() == [[5.0, 0.0], [3.0, 0.0]]


def test_linear_decay_reaches_zero_and_stays():
    assert [linear_decay(p, until=0.5) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 0.5, 0, 0, 0]
