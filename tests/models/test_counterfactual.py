"""Scoring with a picture's values taken away: the plain model with that done naively, one response at a time."""

import math
import statistics
from dataclasses import replace

import pytest
import torch
from model_fixtures import mixed_problems, problem, tiny_policy
from scoring_cases import NUM_RESPONSES, all_plain_logprobs, case, in_true_float64

from papo.functional import salient_attention
from papo.models import shared_prefix
from papo.views import CounterfactualView, Item

SCORINGS = ("padded", "split")


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def family(request):
    """Of those whose every layer attends."""
    return request.param


def with_counterfactual(policy, groups, deviations=1.0):
    view = CounterfactualView(deviations=deviations)

    def shown(group):
        item = Item(
            benchmark="training", problems=[], index=0, problem=group.problem, seed=0, group=group
        )
        return view(item, policy, num_responses=NUM_RESPONSES) or (group,)

    return tuple(replace(group, views={"counterfactual": shown(group)}) for group in groups)


def naive_attention(is_image, deviations):
    """Attention of one sequence, a weight at a time, by the definition."""
    pictures, start = [], None
    for place, flag in enumerate([*is_image, False]):
        if flag and start is None:
            start = place
        if not flag and start is not None:
            pictures.append(range(start, place))
            start = None

    def attend(module, query, key, value, attention_mask, *, scaling, **kwargs):
        num_heads, length = query.shape[1:3]
        group = num_heads // key.shape[1]
        weights = torch.zeros(num_heads, length, length, dtype=query.dtype)
        for head in range(num_heads):
            for row in range(length):
                scores = key[0, head // group, : row + 1] @ query[0, head, row] * scaling
                weights[head, row, : row + 1] = scores.softmax(0)
        images = [place for picture in pictures for place in picture]
        output = torch.zeros(1, length, num_heads, query.shape[3], dtype=query.dtype)
        thresholds = {}
        for picture in pictures:
            found = weights[:, picture.stop :, picture.start : picture.stop].flatten().tolist()
            found = [each for each in found if each > 1e-8]
            thresholds[picture] = statistics.mean(found) + deviations * statistics.stdev(found)
        for head in range(num_heads):
            own = value[0, head // group]
            mean = own[images].mean() if images else None
            for row in range(length):
                seen = own.clone()
                for picture, threshold in thresholds.items():
                    for place in picture:
                        if row >= picture.stop and weights[head, row, place] > threshold:
                            seen[place] = mean
                output[0, row, head] = weights[head, row] @ seen
        return output, None

    return attend


@pytest.mark.parametrize("scoring", SCORINGS)
def test_it_is_what_the_plain_model_says_with_values_replaced(family, scoring, monkeypatch):
    policy = in_true_float64(tiny_policy(family, scoring=scoring), monkeypatch)
    groups, ids, mask = case(policy)
    groups = with_counterfactual(policy, groups)
    with torch.no_grad():
        scores = policy.score(groups, ids, mask, views=("image", "counterfactual"))
    found = scores["counterfactual"].logprobs
    assert (found[~mask] == 0).all()
    for row in (0, 4, 7):
        group, kept = groups[row // NUM_RESPONSES], ids[row][mask[row]]
        sequence = torch.cat([group.prompt_ids, kept])
        is_image = (sequence == policy.adapter.image_token_id).tolist()
        naive = naive_attention(is_image, deviations=1.0)
        with monkeypatch.context() as patched, torch.no_grad():
            patched.setattr(shared_prefix, "plain_attention", naive)
            expected = all_plain_logprobs(
                policy, [group], kept[None], torch.ones(1, len(kept)).bool()
            )
        torch.testing.assert_close(found[row][mask[row]], expected[0], rtol=0, atol=1e-9)
    text = slice(NUM_RESPONSES, 2 * NUM_RESPONSES)
    torch.testing.assert_close(found[text], scores["image"].logprobs[text], rtol=0, atol=1e-9)
    assert (found - scores["image"].logprobs).abs().max() > 1e-3


@pytest.mark.parametrize("scoring", SCORINGS)
def test_where_nothing_is_salient_nothing_changes(family, scoring):
    policy = tiny_policy(family, scoring=scoring)
    groups, ids, mask = case(policy)
    groups = with_counterfactual(policy, groups, deviations=1e6)
    with torch.no_grad():
        scores = policy.score(groups, ids, mask, views=("image", "counterfactual"))
    one, other = (scores[view].logprobs for view in ("image", "counterfactual"))
    torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_what_else_is_in_the_call_never_matters():
    policy = tiny_policy()
    groups, ids, mask = case(policy)
    groups = with_counterfactual(policy, groups)
    with torch.no_grad():
        together = policy.score(groups, ids, mask, views=("counterfactual",))["counterfactual"]
        for row in (0, 7, 11):
            alone = policy.score(
                [groups[row // NUM_RESPONSES]],
                ids[row : row + 1],
                mask[row : row + 1],
                views=("counterfactual",),
            )["counterfactual"]
            torch.testing.assert_close(together.logprobs[row], alone.logprobs[0], rtol=0, atol=1e-5)


def test_it_costs_one_pass_and_another_view_none():
    policy = tiny_policy()
    groups, ids, mask = case(policy)
    groups = with_counterfactual(policy, groups)
    calls = []
    policy.adapter.language_model.register_forward_hook(lambda *_: calls.append(1))
    policy.score(groups, ids, mask, views=("counterfactual",))
    assert len(calls) == 1


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_live_view_has_a_finite_gradient(gradient_checkpointing):
    policy = tiny_policy(gradient_checkpointing=gradient_checkpointing)
    groups, ids, mask = case(policy)
    groups = with_counterfactual(policy, groups)
    policy.score(groups, ids, mask, views=("counterfactual",))[
        "counterfactual"
    ].logprobs.sum().backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert all(torch.isfinite(each).all() for each in gradients)
    assert max(float(each.abs().max()) for each in gradients) > 0


def test_a_prompt_without_a_picture_is_not_shown():
    policy = tiny_policy()
    _, text, _ = policy.encode(mixed_problems())
    (shown,) = with_counterfactual(policy, [text])
    assert shown.views["counterfactual"][0].salient_above is None


@pytest.mark.parametrize("deviations", [-1.0, math.inf, math.nan])
def test_an_impossible_threshold_is_refused_with_its_key(deviations):
    with pytest.raises(ValueError, match=r"objective\.views\.counterfactual\.deviations"):
        CounterfactualView(deviations=deviations)


def test_nothing_is_sampled_from_it():
    policy = tiny_policy()
    (group,) = with_counterfactual(policy, policy.encode([problem()]))
    with pytest.raises(ValueError, match="not sampled from a counterfactual view"):
        policy.prefill(group.views["counterfactual"])


def test_a_model_with_windows_is_refused():
    policy = tiny_policy(scoring="padded")
    groups, ids, mask = case(policy)
    policy.choose_backend.can_split = False
    with pytest.raises(ValueError, match="sliding windows"):
        policy.score(with_counterfactual(policy, groups), ids, mask, views=("counterfactual",))


def test_a_model_with_linear_attention_is_refused():
    policy = tiny_policy("qwen3_5")
    groups, ids, mask = case(policy)
    with pytest.raises(ValueError, match=r"linear attention.*model="):
        policy.score(with_counterfactual(policy, groups), ids, mask, views=("counterfactual",))


@pytest.mark.parametrize("spans", [[(3, 4)], [(2, 3)], []])
def test_a_picture_that_hardly_anything_follows_has_no_salient_look(spans):
    weights = torch.zeros(1, 4, 4)
    weights[0, 3, 2] = 0.5
    assert not salient_attention(weights, spans, deviations=0.0).any()
