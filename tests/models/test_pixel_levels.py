"""Patches held as levels: a quarter of the memory, and to the bit what they were made from."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy
from PIL import Image
from scoring_cases import case, gradients, loss

from papo.masking import BlankMask, GaussianNoiseMask, RandomPatchMask


def every_level():
    """A picture that has each of the 256 levels in every channel, and none by resizing."""
    return Image.frombytes("RGB", (56, 56), bytes(i % 256 for i in range(56 * 56 * 3)))


def test_every_level_of_a_picture_survives(family):
    policy = tiny_policy(family)
    [group] = policy.encode(
        [problem("<image><image>", images=(every_level(), noise_image(90, 60)))]
    )
    packed = policy.packed(group)
    assert packed.patches.dtype == torch.uint8
    assert packed.patches.nbytes * 4 == group.patches.nbytes
    assert torch.equal(policy.encoder.pixel_levels.unpack(packed.patches), group.patches)


MASKS = [
    RandomPatchMask(ratio=0.6, grid="token", raw_square_pixels=14, seed=1),
    RandomPatchMask(ratio=0.6, grid="raw", raw_square_pixels=14, seed=1),
    GaussianNoiseMask(noise_std=40.0, seed=1),
    BlankMask(),
]


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: type(mask).__name__)
def test_the_masked_view_survives_too(mask):
    policy = tiny_policy()
    [group] = policy.encode([problem()])
    masked = mask(group, torch.Generator().manual_seed(0), policy.process_images)
    packed = policy.packed(replace(group, views={"masked": (replace(group, patches=masked),)}))
    [shown] = packed.shown_in("masked")
    assert shown.patches.dtype == torch.uint8
    assert torch.equal(policy.encoder.pixel_levels.unpack(shown.patches), masked)


def test_patches_that_are_not_made_of_levels_are_left_as_they_are():
    policy = tiny_policy()
    [group] = policy.encode([problem()])
    for patches in (group.patches + 1e-3, group.patches * 100, group.patches.double()):
        assert policy.packed(replace(group, patches=patches)).patches is patches


def test_a_prompt_without_a_picture_has_nothing_to_pack():
    policy = tiny_policy()
    [group] = policy.encode([problem("only words", images=())])
    assert policy.packed(group) is group


@pytest.mark.parametrize("freeze_vision", [False, True])
def test_scores_gradients_and_pictures_are_the_same_to_the_bit(family, freeze_vision):
    policy = tiny_policy(family, freeze_vision=freeze_vision)
    groups, ids, mask = case(policy)
    results = []
    for held in (groups, tuple(policy.packed(group) for group in groups)):
        scores = policy.score(held, ids, mask, views=("image", "masked"))
        value = loss(scores["image"].logprobs) - loss(scores["masked"].logprobs)
        results.append([scores["image"].logprobs.detach(), *gradients(policy, value).values()])
        assert [p.tobytes() for p in policy.pictures(held[0].patches, held[0].pictures)] == [
            p.tobytes() for p in policy.pictures(groups[0].patches, groups[0].pictures)
        ]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
