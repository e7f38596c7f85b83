"""Masks hide what they say, where they say, behind the processor's own black."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from papo.masking import BlankMask, RandomPatchMask, black_token_fraction
from papo.types import PictureLayout, Problem, PromptGroup
from papo.views import changed_fraction

PROCESSOR = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=560 * 560)
BLACK = {"raw_square_pixels": 14, "seed": 0}


def process_images(images):
    return PROCESSOR(list(images), return_tensors="pt")["pixel_values"]


def picture(width, height, seed=0, mode="RGB"):
    channels = {"RGB": 3, "RGBA": 4}.get(mode, 1)
    pixels = np.random.default_rng(seed).integers(
        40, 256, (height, width, channels), dtype=np.uint8
    )
    return Image.fromarray(pixels.squeeze(), mode if channels > 1 else "L").convert(mode)


def group_of(*images):
    problem = Problem(
        id="p", question="<image>" * len(images), answer="1", images=images, source="test"
    )
    encoded = PROCESSOR(list(images), return_tensors="pt") if images else {}
    return PromptGroup(
        problem=problem,
        prompt_ids=torch.zeros(1, dtype=torch.long),
        position_ids=torch.zeros(3, 1, dtype=torch.long),
        next_position=1,
        patches=encoded.get("pixel_values"),
        pictures=tuple(
            PictureLayout(rows=rows, columns=columns, token_side=2)
            for _, rows, columns in encoded.get("image_grid_thw", torch.empty(0, 3)).int().tolist()
        ),
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mask_with(grid, ratio=0.6, **changes):
    return RandomPatchMask(ratio=ratio, grid=grid, **{**BLACK, **changes})


def masked(group, mask, seed=0):
    return replace(group, patches=mask(group, generator(seed), process_images))


@pytest.fixture
def two_images():
    return group_of(picture(140, 84), picture(56, 112, seed=1))


@pytest.mark.parametrize("grid", ["raw", "patch", "token"])
def test_masks_a_share_near_the_ratio_of_every_image(grid):
    group = group_of(picture(560, 560), picture(280, 560, seed=1))
    result = masked(group, mask_with(grid))
    is_masked = (result.patches != group.patches).any(dim=1)
    first, second = is_masked[:1600].float().mean(), is_masked[1600:].float().mean()
    # Binomial: 5 standard errors of 200 cells at 0.6 are 0.17.
    assert 0.43 < first < 0.77
    assert 0.43 < second < 0.77
    assert changed_fraction(group, [result]) == pytest.approx(is_masked.float().mean().item())


@pytest.mark.parametrize("grid", ["raw", "patch", "token"])
def test_equal_generators_give_equal_masks_and_others_differ(two_images, grid):
    mask = mask_with(grid)
    torch.manual_seed(1)
    first = mask(two_images, generator(5), process_images)
    torch.manual_seed(2)
    again = mask(two_images, generator(5), process_images)
    other = mask(two_images, generator(6), process_images)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("grid", ["raw", "patch", "token"])
def test_never_touches_the_global_random_state_or_the_group(two_images, grid):
    before, patches = torch.get_rng_state(), two_images.patches.clone()
    pictures = [image.tobytes() for image in two_images.problem.images]
    mask_with(grid)(two_images, generator(), process_images)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(two_images.patches, patches)
    assert [image.tobytes() for image in two_images.problem.images] == pictures


@pytest.mark.parametrize("grid", ["raw", "patch", "token"])
def test_ratio_zero_hides_nothing_and_ratio_one_everything(two_images, grid):
    black = process_images([Image.new("RGB", image.size) for image in two_images.problem.images])
    torch.testing.assert_close(
        mask_with(grid, ratio=0.0)(two_images, generator(), process_images), two_images.patches
    )
    assert torch.equal(mask_with(grid, ratio=1.0)(two_images, generator(), process_images), black)
    assert torch.equal(BlankMask()(two_images, generator(), process_images), black)


def test_hidden_patches_are_the_normalised_black_not_zero(two_images):
    result = masked(two_images, mask_with("patch"))
    hidden = (result.patches != two_images.patches).any(dim=1)
    # (0 - mean) / std per channel; a row holds 2 frames of 14x14 pixels per channel.
    mean, std = torch.tensor(PROCESSOR.image_mean), torch.tensor(PROCESSOR.image_std)
    black_row = (-mean / std).repeat_interleave(2 * 14 * 14)
    torch.testing.assert_close(
        result.patches[hidden], black_row.expand(int(hidden.sum()), -1), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(result.patches[~hidden], two_images.patches[~hidden])


def test_token_cells_are_28_pixel_squares_of_the_processed_picture():
    group = group_of(picture(140, 84))
    result = masked(group, mask_with("token", ratio=0.5), seed=3)
    drawn = torch.rand(15, generator=generator(3)) < 0.5
    pixels = np.array(group.problem.images[0])
    for cell, hidden in enumerate(drawn.tolist()):
        if hidden:
            row, column = divmod(cell, 5)
            pixels[row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28] = 0
    torch.testing.assert_close(
        result.patches, process_images([Image.fromarray(pixels)]), rtol=1e-5, atol=1e-5
    )


def naive_blackening(pixels, hidden, side):
    """Square by square, as the definition reads; edge squares are cut off."""
    pixels = pixels.copy()
    height, width = pixels.shape[:2]
    draws = iter(hidden.flatten().tolist())
    for top in range(0, height, side):
        for left in range(0, width, side):
            if next(draws):
                pixels[top : min(top + side, height), left : min(left + side, width)] = 0
    return pixels


def test_raw_cells_are_14_pixel_squares_of_the_picture_before_resizing():
    image = picture(101, 73)  # neither side is a multiple of 14 or 28
    seen = []

    def recording(images):
        seen.extend(images)
        return process_images(images)

    mask_with("raw")(group_of(image), generator(4), recording)
    drawn = torch.rand(6, 8, generator=generator(4)) < 0.6
    expected = naive_blackening(np.array(image), drawn, 14)
    assert np.array_equal(np.array(seen[0]), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_raw_squares_are_opaque_black_in_every_picture_mode(mode):
    image = (
        picture(70, 56, mode="RGBA") if mode == "RGBA" else picture(70, 56, mode="L").convert(mode)
    )
    seen = []

    def recording(images):
        seen.extend(images)
        return process_images([image.convert("RGB") for image in images])

    group = group_of(image.convert("RGB"))
    group = replace(group, problem=replace(group.problem, images=(image,)))
    mask_with("raw", ratio=1.0)(group, generator(), recording)
    assert not np.array(seen[0].convert("RGB")).any()
    assert np.array(seen[0].convert("RGBA"))[..., 3].min() == 255


def test_at_ratio_60_a_raw_grid_leaves_13_percent_of_tokens_black_and_a_token_grid_60():
    # Four raw squares per token when nothing is resized: 0.6^4 = 0.1296.
    group = group_of(picture(560, 560))
    raw = black_token_fraction(masked(group, mask_with("raw")), process_images)
    token = black_token_fraction(masked(group, mask_with("token")), process_images)
    assert raw == pytest.approx(0.1296, abs=0.08)
    assert token == pytest.approx(0.6, abs=0.12)


def test_the_measure_catches_masks_that_mask_nothing_or_single_pixels(two_images):
    untouched = replace(two_images, patches=two_images.patches.clone())
    assert changed_fraction(two_images, [untouched]) == 0.0
    # Blackening 60 % of single values changes every patch and hides none.
    black = BlankMask()(two_images, generator(), process_images)
    noise = torch.rand(black.shape, generator=generator()) < 0.6
    speckled = replace(two_images, patches=torch.where(noise, black, two_images.patches))
    assert changed_fraction(two_images, [speckled]) == 1.0
    assert black_token_fraction(speckled, process_images) == 0.0
    hidden = replace(two_images, patches=black)
    assert black_token_fraction(hidden, process_images) == 1.0


@pytest.mark.parametrize("grid", ["raw", "patch", "token"])
def test_masked_patches_keep_the_dtype_of_the_patches(two_images, grid):
    half = replace(two_images, patches=two_images.patches.bfloat16())
    assert mask_with(grid)(half, generator(), process_images).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "mask", [mask_with("raw"), mask_with("patch"), mask_with("token"), BlankMask()]
)
def test_a_prompt_without_image_is_refused(mask):
    with pytest.raises(ValueError, match="no image to mask"):
        mask(group_of(), generator(), process_images)


def test_what_a_view_changes_is_counted_over_the_prompts_that_it_shows(two_images):
    black = masked(two_images, BlankMask())
    assert changed_fraction(two_images, [black, two_images]) == 0.5
    # Patches of another number, or none: the picture is another.
    assert changed_fraction(two_images, [replace(two_images, patches=None)]) == 1.0
    assert changed_fraction(two_images, [replace(two_images, patches=black.patches[:4])]) == 1.0
    assert changed_fraction(group_of(), [group_of()]) is None


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"ratio": -0.1}, "masking.ratio"),
        ({"ratio": 1.5}, "masking.ratio"),
        ({"ratio": float("nan")}, "masking.ratio"),
        ({"grid": "pixels"}, "masking.grid"),
        ({"raw_square_pixels": 0}, "masking.raw_square_pixels"),
    ],
)
def test_impossible_settings_name_their_key(settings, key):
    with pytest.raises(ValueError, match=key):
        RandomPatchMask(**{"ratio": 0.6, "grid": "raw", **BLACK, **settings})


def test_a_processor_other_than_the_encoding_one_is_refused(two_images):
    message = "the processor the prompt was encoded with"
    with pytest.raises(ValueError, match=message):
        mask_with("raw")(two_images, generator(), lambda images: process_images(images)[:-4])
    with pytest.raises(ValueError, match=message):
        BlankMask()(two_images, generator(), lambda images: process_images(images)[:, :-1])
