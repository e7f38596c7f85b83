import pytest
import torch
from model_fixtures import mixed_problems, tiny_policy

from papo.rollout import SharedPrefillSampler, draw_tokens
from papo.types import derive_seeds


def sampler(policy, **overrides):
    settings = {
        **{"temperature": 1.0, "top_p": 1.0, "top_k": None},
        **{"max_response_tokens": 12, "max_rows": 64},
    }
    return SharedPrefillSampler(policy=policy, **{**settings, **overrides})


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_sampled_logprobs_equal_scored_ones(family, top_p):
    policy = tiny_policy(family)
    groups = policy.encode(mixed_problems())
    responses = sampler(policy, top_p=top_p).sample(groups, 5, derive_seeds(1, len(groups)))
    with torch.no_grad():
        scores = policy.score(groups, responses.ids, responses.mask)
    torch.testing.assert_close(responses.logprobs, scores["image"].logprobs, rtol=0, atol=1e-5)


def test_equal_seeds_give_equal_responses_however_they_are_batched():
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    together = sampler(policy).sample(groups, 4, derive_seeds(1, len(groups)))
    apart = sampler(policy, max_rows=4).sample(groups, 4, derive_seeds(1, len(groups)))
    other = sampler(policy).sample(groups, 4, derive_seeds(2, len(groups)))
    assert torch.equal(together.ids[together.mask], apart.ids[apart.mask])
    assert together.texts == apart.texts
    assert together.texts != other.texts


def test_the_responses_to_one_prompt_differ():
    policy = tiny_policy()
    responses = sampler(policy).sample(policy.encode(mixed_problems()[:1]), 8, [1])
    assert len(set(responses.texts)) > 1


def test_finished_rows_leave_the_cache_and_nothing_changes():
    # An end token of probability about 1/8 per step finishes rows at different times.
    policy = tiny_policy(initializer_range=0.02)
    groups = policy.encode(mixed_problems())
    ends = list(range(0, 256, 8))
    type_ = type(policy)
    original = type_.end_token_ids
    type_.end_token_ids = property(lambda self: tuple(ends))
    widths = []
    extend = policy.extend

    def counting(prefix, ids, mask):
        widths.append(ids.shape[0])
        return extend(prefix, ids, mask)

    policy.extend = counting
    try:
        responses = sampler(policy, max_response_tokens=30).sample(
            groups, 8, derive_seeds(1, len(groups))
        )
    finally:
        type_.end_token_ids = original
    assert widths[0] == 24
    assert widths[-1] < widths[0]
    assert responses.finished.any()
    lengths = responses.mask.sum(dim=1)
    assert lengths.unique().numel() > 3
    with torch.no_grad():
        scores = policy.score(groups, responses.ids, responses.mask)
    torch.testing.assert_close(responses.logprobs, scores["image"].logprobs, rtol=0, atol=1e-5)
    for row in range(24):
        written = responses.ids[row][responses.mask[row]].tolist()
        assert not any(i in ends for i in written[:-1])
        assert bool(responses.finished[row]) == (written[-1] in ends)


def test_each_prompt_is_read_once():
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    rows = []
    prefill = policy.prefill
    policy.prefill = lambda groups: rows.append(len(groups)) or prefill(groups)
    towers = []
    hook = policy.adapter.vision_tower.register_forward_hook(lambda *args: towers.append(1))
    sampler(policy).sample(groups, 8, derive_seeds(0, len(groups)))
    hook.remove()
    assert rows == [3]
    assert len(towers) == 1


def test_vision_tokens_are_never_sampled():
    policy = tiny_policy()
    with torch.no_grad():  # make the image token by far the most likely one
        weight = policy.model.get_input_embeddings().weight
        weight[policy.adapter.image_token_id] = 50 * weight.mean(dim=0)
    responses = sampler(policy, max_response_tokens=30).sample(
        policy.encode(mixed_problems()), 8, derive_seeds(0, 3)
    )
    assert not torch.isin(responses.ids, torch.tensor(policy.banned_token_ids)).any()


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = (torch.arange(10_000) + 0.5) / 10_000
    tokens = draw_tokens(probabilities.log().expand(10_000, 4), draws, 1.0)
    torch.testing.assert_close(tokens.bincount(minlength=4) / 10_000, probabilities)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    # 0.5 + 0.3 reaches 0.8 exactly, so 0.15 and 0.05 are out; renormalised: 0.625 and 0.375.
    probabilities = torch.tensor([0.05, 0.3, 0.5, 0.15], dtype=torch.float64)
    draws = (torch.arange(8_000) + 0.5) / 8_000
    tokens = draw_tokens(probabilities.log().expand(8_000, 4), draws, 0.8)
    assert tokens.bincount(minlength=4).tolist() == [0, 3000, 5000, 0]


def test_a_token_of_probability_zero_is_never_drawn():
    logprobs = torch.tensor([[-torch.inf, 0.0]])
    assert draw_tokens(logprobs, torch.tensor([1.0 - 1e-7]), 1.0).tolist() == [1]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"temperature": 0.5}, "rollout.temperature"),
        ({"top_p": 0.0}, "rollout.top_p"),
        ({"top_p": 1.5}, "rollout.top_p"),
        ({"max_response_tokens": 0}, "rollout.max_response_tokens"),
        ({"top_k": 0}, "rollout.top_k"),
        ({"max_rows": 0}, "rollout.max_rows"),
    ],
)
def test_impossible_settings_name_their_key(setting, key):
    with pytest.raises(ValueError, match=key):
        sampler(tiny_policy(), **setting)


def test_a_group_larger_than_max_rows_is_decoded_in_parts():
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    whole = sampler(policy).sample(groups, 5, derive_seeds(0, 3))
    parts = sampler(policy, max_rows=2).sample(groups, 5, derive_seeds(0, 3))
    assert whole.texts == parts.texts


def test_a_response_depends_on_its_own_seed_alone():
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    together = sampler(policy).sample(groups, 3, [5, 6, 7])
    alone = sampler(policy).sample(groups[1:2], 3, [6])
    assert together.texts[3:6] == alone.texts
    more = sampler(policy).sample(groups[1:2], 4, [6])
    assert more.texts[:3] == alone.texts


def test_top_k_keeps_the_most_likely_and_renormalises_before_top_p():
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    draws = (torch.arange(7_000) + 0.5) / 7_000
    rows = probabilities.log().expand(7_000, 4)
    tokens = draw_tokens(rows, draws, 1.0, 2)
    assert tokens.bincount(minlength=4).tolist() == [0, 4000, 0, 3000]
    # Of the two, 0.4 is 57 %: with top-p 0.5 it reaches the nucleus by itself; of all four it does not.
    assert draw_tokens(rows, draws, 0.5, 2).unique().tolist() == [1]
    assert draw_tokens(rows, draws, 0.5).unique().tolist() == [1, 3]


def test_top_k_of_one_is_greedy():
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    greedy = sampler(policy, top_k=1).sample(groups, 2, derive_seeds(0, 3))
    assert greedy.texts[0] == greedy.texts[1]
    first = policy.next_token_logprobs(policy.prefill(groups).last_hidden).argmax(dim=-1)
    assert greedy.ids[::2, 0].tolist() == first.tolist()


@pytest.mark.parametrize("room", [6, 2, 1])
def test_running_out_of_memory_costs_rows_but_no_response(room, caplog):
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    expected = sampler(policy).sample(groups, 4, derive_seeds(1, 3))
    engine = sampler(policy)
    extend = policy.extend

    def small(prefix, ids, mask):
        if ids.shape[0] > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return extend(prefix, ids, mask)

    policy.extend = small
    responses = engine.sample(groups, 4, derive_seeds(1, 3))
    assert responses.texts == expected.texts
    assert torch.equal(responses.ids[responses.mask], expected.ids[expected.mask])
    assert engine.max_rows <= room
    assert "out of memory" in caplog.text


def test_a_single_response_that_does_not_fit_is_an_error():
    policy = tiny_policy()

    def full(groups):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    policy.prefill = full
    with pytest.raises(MemoryError, match=r"rollout\.max_response_tokens"):
        sampler(policy).sample(policy.encode(mixed_problems()), 4, derive_seeds(1, 3))


def test_another_error_is_not_retried():
    policy = tiny_policy()
    calls = []

    def broken(groups):
        calls.append(1)
        raise RuntimeError("shapes differ")

    policy.prefill = broken
    with pytest.raises(RuntimeError, match="shapes differ"):
        sampler(policy).sample(policy.encode(mixed_problems()), 4, derive_seeds(1, 3))
    assert calls == [1]


@pytest.mark.parametrize(("num_responses", "seeds"), [(0, [1, 2, 3]), (2, [1, 2])])
def test_sampling_needs_a_response_and_a_seed_per_prompt(num_responses, seeds):
    policy = tiny_policy()
    with pytest.raises(ValueError, match=r"at least one response|own seed"):
        sampler(policy).sample(policy.encode(mixed_problems()), num_responses, seeds)


def test_a_draw_of_almost_one_is_the_last_possible_token_with_and_without_a_nucleus():
    almost_one = torch.tensor([1.0 - 2.0**-53], dtype=torch.float64)
    logprobs = torch.tensor([[0.25, 0.25, 0.5, 0.0]]).log()
    assert draw_tokens(logprobs, almost_one, 1.0).tolist() == [2]
    assert draw_tokens(logprobs, almost_one, 0.999).tolist() == [1]


def test_draws_without_a_nucleus_follow_the_distribution_whatever_the_order():
    probabilities = torch.tensor([0.05, 0.5, 0.15, 0.3])
    draws = (torch.arange(10_000) + 0.5) / 10_000
    tokens = draw_tokens(probabilities.log().expand(10_000, 4), draws, 1.0)
    torch.testing.assert_close(tokens.bincount(minlength=4) / 10_000, probabilities)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_policy_that_has_become_nan_still_draws_tokens_that_exist(top_p):
    logprobs, draws = torch.full((2, 5), torch.nan), torch.tensor([0.1, 0.9])
    tokens = draw_tokens(logprobs, draws, top_p)
    assert ((tokens >= 0) & (tokens < 5)).all()
