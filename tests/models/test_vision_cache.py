"""A frozen vision tower sees each picture once, whoever asks; a trained one is never remembered."""

import gc
from copy import deepcopy

import pytest
import torch
from model_fixtures import tiny_policy
from scoring_cases import NUM_RESPONSES, case

from papo.rollout import SharedPrefillSampler
from papo.types import derive_seeds


def count_patches(policy):
    """The number of patches of every call of the tower."""
    calls = []
    policy.adapter.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(args[0].shape[0]), with_kwargs=True
    )
    return calls


def num_patches(groups):
    return sum(group.patches.shape[0] for group in groups if group.patches is not None)


def one_rollout_and_its_updates(policy, reference, groups):
    """Sampling, the reference, the masked view under the old policy, and two epochs of two updates."""
    sampler = SharedPrefillSampler(
        policy=policy, temperature=1.0, top_p=1.0, top_k=None, max_response_tokens=5, max_rows=64
    )
    responses = sampler.sample(groups, NUM_RESPONSES, derive_seeds(0, len(groups)))
    with torch.no_grad():
        reference.score(groups, responses.ids, responses.mask)
        policy.score(groups, responses.ids, responses.mask, views=("masked",))
    for _ in range(2):
        for start in (0, 2):
            rows = slice(start * NUM_RESPONSES, (start + 2) * NUM_RESPONSES)
            policy.score(
                groups[start : start + 2],
                responses.ids[rows],
                responses.mask[rows],
                views=("image", "masked"),
            )["image"].logprobs.sum().backward()


@pytest.mark.parametrize("scoring", ["padded", "twopass", "split"])
def test_a_frozen_tower_sees_every_view_once_per_rollout_batch(family, scoring):
    policy = tiny_policy(family, freeze_vision=True, scoring=scoring)
    reference = deepcopy(policy).requires_grad_(False)
    groups, _, _ = case(policy)
    calls = count_patches(policy)
    one_rollout_and_its_updates(policy, reference, groups)
    assert calls == [num_patches(groups), num_patches(groups)]


def test_a_trained_tower_sees_every_view_in_every_pass(family):
    policy = tiny_policy(family)
    reference = deepcopy(policy).requires_grad_(False)
    groups, _, _ = case(policy)
    calls, reference_calls = count_patches(policy), count_patches(reference)
    one_rollout_and_its_updates(policy, reference, groups)
    # Sampling and the masked view read all pictures; an epoch reads them once in each view.
    assert sum(calls) == (1 + 1 + 2 * 2) * num_patches(groups)
    assert reference_calls == [num_patches(groups)]
    assert policy.reader.vision_cache is None


def test_remembered_features_give_the_same_scores_and_gradients(family):
    results = []
    for freeze_vision in (True, False):
        policy = tiny_policy(family, freeze_vision=freeze_vision)
        groups, ids, mask = case(policy)
        for _ in range(2):  # the second time from memory
            policy.zero_grad()
            scores = policy.score(groups, ids, mask)["image"].logprobs
            scores.sum().backward()
            results.append((scores.detach(), policy.model.get_input_embeddings().weight.grad))
    for scores, gradient in results[1:]:
        torch.testing.assert_close(scores, results[0][0], rtol=0, atol=1e-6)
        scale = float(results[0][1].abs().max())
        torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=1e-6 * scale)


def test_only_pictures_that_are_new_are_computed():
    policy = tiny_policy(freeze_vision=True)
    groups, ids, mask = case(policy)
    calls = count_patches(policy)
    with torch.no_grad():
        policy.score(groups[:1], ids[:3], mask[:3])
        expected = policy.score(groups, ids, mask)["image"].logprobs
        fresh = tiny_policy(freeze_vision=True).score(groups, ids, mask)["image"].logprobs
    assert calls == [num_patches(groups[:1]), num_patches(groups[1:])]
    torch.testing.assert_close(expected, fresh, rtol=0, atol=1e-5)


def test_the_features_go_when_the_batch_goes():
    policy = tiny_policy(freeze_vision=True)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        policy.score(groups, ids, mask, views=("image", "masked"))
    assert len(policy.reader.vision_cache) == 6  # three groups with pictures, two views
    del groups
    gc.collect()
    assert len(policy.reader.vision_cache) == 0


def loaded_weights(policy, groups):
    state = {name: 1.01 * value for name, value in policy.state_dict().items()}
    policy.load_state_dict(state)


def changed_pixels(policy, groups):
    groups[0].patches.mul_(0.5)


def thawed(policy, groups):
    policy.adapter.vision_tower.requires_grad_(True)


def in_float64(policy, groups):
    policy.double()


@pytest.mark.parametrize("change", [loaded_weights, changed_pixels, thawed, in_float64])
def test_features_are_computed_again_after_a_change(change):
    policy = tiny_policy(freeze_vision=True)
    groups, ids, mask = case(policy)
    calls = count_patches(policy)
    with torch.no_grad():
        policy.score(groups, ids, mask)
        change(policy, groups)
        policy.score(groups, ids, mask)
    again = num_patches(groups[:1]) if change is changed_pixels else num_patches(groups)
    assert calls == [num_patches(groups), again]


def test_features_of_another_precision_are_not_reused():
    policy = tiny_policy(freeze_vision=True)
    groups, ids, mask = case(policy)
    calls = count_patches(policy)
    with torch.no_grad():
        policy.score(groups, ids, mask)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            policy.score(groups, ids, mask)
    assert len(calls) == 2


def test_features_made_in_inference_mode_serve_a_pass_with_gradient():
    policy = tiny_policy(freeze_vision=True)
    groups, ids, mask = case(policy)
    calls = count_patches(policy)
    with torch.inference_mode():
        policy.score(groups, ids, mask)
    policy.score(groups, ids, mask)["image"].logprobs.sum().backward()
    assert len(calls) == 1


def test_a_copy_shares_a_frozen_tower_and_nothing_else():
    policy = tiny_policy(freeze_vision=True)
    copied = deepcopy(policy)
    assert copied.adapter.vision_tower is policy.adapter.vision_tower
    assert copied.adapter.head_weight is not policy.adapter.head_weight
    trained = tiny_policy()
    assert deepcopy(trained).adapter.vision_tower is not trained.adapter.vision_tower
