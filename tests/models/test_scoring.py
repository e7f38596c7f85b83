import pytest
import torch
from model_fixtures import mixed_problems, problem, tiny_policy, with_noise_as_masked_view

from papo.rollout import SharedPrefillSampler
from papo.types import derive_seeds


def sampled(policy, groups, num_responses=3, max_response_tokens=9):
    sampler = SharedPrefillSampler(
        policy=policy,
        temperature=policy.temperature,
        top_p=1.0,
        top_k=None,
        max_response_tokens=max_response_tokens,
        max_rows=64,
    )
    return sampler.sample(groups, num_responses, derive_seeds(1, len(groups)))


def ragged(responses):
    """The same responses, cut to lengths 1, 2, 3, ... in turn."""
    mask = responses.mask.clone()
    for row in range(mask.shape[0]):
        mask[row, 1 + row % mask.shape[1] :] = False
    return responses.ids, mask


def test_gradient_reaches_the_vision_tower_through_both_views(family):
    policy = tiny_policy(family)
    groups = with_noise_as_masked_view(policy.encode([problem()]))
    responses = sampled(policy, groups)
    for view in ("image", "masked"):
        policy.zero_grad()
        scores = policy.score(groups, responses.ids, responses.mask, views=("image", "masked"))
        scores[view].logprobs.sum().backward()
        towers = [p.grad for p in policy.adapter.vision_tower.parameters()]
        assert any(g is not None and bool((g != 0).any()) for g in towers), view


def test_the_masked_view_reads_the_masked_patches(family):
    policy = tiny_policy(family)
    groups = with_noise_as_masked_view(policy.encode([problem()]))
    responses = sampled(policy, groups)
    with torch.no_grad():
        scores = policy.score(
            groups, responses.ids, responses.mask, views=("image", "masked"), full_vocabulary=True
        )
        alone = policy.score(groups, responses.ids, responses.mask, views=("masked",))[
            "masked"
        ].logprobs
    assert (scores["image"].logprobs - scores["masked"].logprobs).abs().max() > 1e-3
    assert scores["masked"].kl_from_image.max() > 1e-4
    torch.testing.assert_close(alone, scores["masked"].logprobs, rtol=0, atol=1e-6)


def test_a_text_only_prompt_has_two_equal_views():
    policy = tiny_policy()
    groups = policy.encode([problem("only words", images=())])
    responses = sampled(policy, groups)
    with torch.no_grad():
        scores = policy.score(
            groups, responses.ids, responses.mask, views=("image", "masked"), full_vocabulary=True
        )
    assert torch.equal(scores["image"].logprobs, scores["masked"].logprobs)
    torch.testing.assert_close(
        scores["masked"].kl_from_image,
        torch.zeros_like(scores["masked"].kl_from_image),
        rtol=0,
        atol=1e-6,
    )


def test_a_missing_masked_view_is_an_error():
    policy = tiny_policy()
    groups = policy.encode([problem()])
    responses = sampled(policy, groups)
    with pytest.raises(ValueError, match="no view 'masked'"):
        policy.score(groups, responses.ids, responses.mask, views=("image", "masked"))


def test_the_vision_tower_runs_once_per_view():
    policy = tiny_policy()
    groups = with_noise_as_masked_view(policy.encode(mixed_problems()))
    responses = sampled(policy, groups, num_responses=4)
    rows = []
    hook = policy.adapter.vision_tower.register_forward_hook(
        lambda module, inputs, kwargs, output: rows.append(inputs[0].shape[0]), with_kwargs=True
    )
    with torch.no_grad():
        policy.score(groups, responses.ids, responses.mask, views=("image", "masked"))
    hook.remove()
    num_patches = sum(g.patches.shape[0] for g in groups if g.patches is not None)
    assert rows == [num_patches, num_patches]


def test_a_sampled_image_token_is_scored_as_a_token_not_as_a_slot():
    policy = tiny_policy()
    groups = policy.encode([problem()])
    ids = torch.tensor([[5, 6, policy.adapter.image_token_id, 7]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    for scoring in ("split", "padded"):
        policy.choose_backend.scoring = scoring
        scores = policy.score(groups, ids, mask)
        assert torch.isfinite(scores["image"].logprobs[0, [0, 1, 3]]).all()
        assert scores["image"].logprobs[0, 2] == -torch.inf  # the policy can never have written it


def test_a_copied_policy_scores_with_its_own_weights():
    from copy import deepcopy

    policy = tiny_policy()
    copied = deepcopy(policy)
    groups = policy.encode([problem()])
    responses = sampled(policy, groups)
    with torch.no_grad():
        before = copied.score(groups, responses.ids, responses.mask)["image"].logprobs
        for parameter in policy.parameters():
            parameter.zero_()
        after = copied.score(groups, responses.ids, responses.mask)["image"].logprobs
    assert torch.equal(before, after)
    assert (before[responses.mask] < 0).all()
