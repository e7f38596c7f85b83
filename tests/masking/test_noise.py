"""Gaussian noise lies on every picture, is fixed by the generator, and serves wherever a mask does."""

import numpy as np
import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy
from PIL import Image

from papo.masking import GaussianNoiseMask, check_mask


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(noise_std=40.0):
    return GaussianNoiseMask(noise_std=noise_std, seed=0)


def noisy_pictures(mask, *images, seed=0):
    """The pictures that the mask hands to the processor."""
    seen, policy = [], tiny_policy()
    (group,) = policy.encode([problem("<image>" * len(images) + "?", images=images)])

    def process_images(pictures):
        seen.extend(pictures)
        return policy.process_images(pictures)

    mask(group, generator(seed), process_images)
    return seen


def test_equal_generators_give_equal_noise_and_others_differ(policy):
    (group,) = policy.encode([problem()])
    torch.manual_seed(1)
    first = noise()(group, generator(5), policy.process_images)
    torch.manual_seed(2)
    assert torch.equal(noise()(group, generator(5), policy.process_images), first)
    assert not torch.equal(noise()(group, generator(6), policy.process_images), first)


def test_never_touches_the_global_random_state_or_the_group(policy):
    (group,) = policy.encode([problem()])
    before, patches = torch.get_rng_state(), group.patches.clone()
    pixels = group.problem.images[0].tobytes()
    noise()(group, generator(), policy.process_images)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(group.patches, patches)
    assert group.problem.images[0].tobytes() == pixels


def test_every_patch_of_every_picture_changes_and_keeps_its_shape(policy):
    images = (noise_image(60, 90), noise_image(40, 40, 1))
    (group,) = policy.encode([problem("<image><image>?", images=images)])
    masked = noise()(group, generator(), policy.process_images)
    assert masked.shape == group.patches.shape
    assert masked.dtype == group.patches.dtype
    assert bool((masked != group.patches).any(dim=1).all())


def test_noise_is_gaussian_of_the_named_deviation_in_every_channel():
    # 120 x 100 pixels: the standard error of a standard deviation of 20 is 20 / sqrt(24000) = 0.13.
    grey = Image.new("RGB", (120, 100), (128, 128, 128))
    (noisy,) = noisy_pictures(noise(20.0), grey)
    assert noisy.size == grey.size
    difference = np.asarray(noisy, dtype=float) - 128
    assert difference.mean(axis=(0, 1)) == pytest.approx([0] * 3, abs=1.0)
    assert difference.std(axis=(0, 1)) == pytest.approx([20] * 3, abs=0.8)
    assert (np.abs(difference) < 20).mean() == pytest.approx(0.683, abs=0.02)
    # Channels and pixels are independent.
    correlations = np.corrcoef(difference.reshape(-1, 3).T)
    assert abs(correlations - np.eye(3)).max() < 0.05


def test_noise_does_not_wrap_around_at_black_and_white():
    white = Image.new("RGB", (60, 60), "white")
    (noisy,) = noisy_pictures(noise(30.0), white)
    # Half of the draws lie above white and are cut off there.
    assert (np.asarray(noisy) == 255).mean() == pytest.approx(0.5, abs=0.05)
    assert np.asarray(noisy).min() > 80


def test_two_equal_pictures_of_a_prompt_get_different_noise():
    grey = Image.new("RGB", (56, 56), (128, 128, 128))
    first, second = noisy_pictures(noise(), grey, grey)
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_every_mode_get_noise(mode):
    (noisy,) = noisy_pictures(noise(), Image.new("RGB", (56, 56), "grey").convert(mode))
    assert noisy.mode == "RGB"
    assert np.asarray(noisy).std() > 10


@pytest.mark.parametrize("noise_std", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_without_a_deviation_is_refused(noise_std):
    with pytest.raises(ValueError, match=r"masking\.noise_std"):
        noise(noise_std)


def test_a_prompt_without_a_picture_is_refused(policy):
    (group,) = policy.encode([problem("no image", images=())])
    with pytest.raises(ValueError, match="no image to mask"):
        noise()(group, generator(), policy.process_images)


def test_it_fits_any_problem_with_a_picture():
    check_mask(noise(), [problem("no image", images=()), problem()], remedy="views=image")
