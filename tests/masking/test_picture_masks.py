"""Every mask that repaints a picture: fixed by its generator, of the picture's size, and as its code has it."""

import numpy as np
import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy
from PIL import Image

from papo.masking import (
    AnnealedDiffusionNoise,
    BlankMask,
    ColourJitterMask,
    CropFillMask,
    DiffusionNoiseMask,
    GaussianNoiseMask,
    OcclusionMask,
    OneOf,
    PerspectiveMask,
    ProcessedNoiseMask,
    RotationMask,
    ZoomCropMask,
    diffusion_coefficients,
)
from papo.masking.rearranged import perspective_coefficients

JITTER = {"brightness": [0.2, 1.3], "contrast": [0.2, 1.8], "saturation": [0.2, 1.8]}
MASKS = {
    "gaussian": GaussianNoiseMask(noise_std=40.0, seed=0),
    "gaussian, rounded down": GaussianNoiseMask(noise_std=40.0, seed=0, rounding="down"),
    "processed": ProcessedNoiseMask(noise_std=2.0, seed=0),
    "diffusion": DiffusionNoiseMask(noise_step=500, seed=0),
    "annealed": AnnealedDiffusionNoise(
        initial_step=500, decay="sigmoid", steepness=10.0, middle=0.5, seed=0
    ).at(0.2),
    "crop fill": CropFillMask(size=0.5, seed=0),
    "occlusion": OcclusionMask(rectangles=50, size=[0.05, 0.15], seed=0),
    "zoom crop": ZoomCropMask(size=[0.6, 0.7], seed=0),
    "jitter": ColourJitterMask(**JITTER, seed=0),
    "rotation": RotationMask(degrees=10.0, seed=0),
    "perspective": PerspectiveMask(distortion=0.5, probability=1.0, seed=0),
    "one of": OneOf(
        masks=[RotationMask(degrees=10.0, seed=0), CropFillMask(size=0.5, seed=0)], seed=0
    ),
}
REPAINTING = [name for name in MASKS if name != "processed"]


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def array(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", MASKS)
def test_it_is_fixed_by_its_generator_and_leaves_the_group_alone(name, policy):
    images = (noise_image(60, 90), noise_image(40, 40, 1))
    (group,) = policy.encode([problem("<image><image>?", images=images)])
    before, patches = torch.get_rng_state(), group.patches.clone()
    first = MASKS[name](group, generator(5), policy.process_images)
    assert torch.equal(MASKS[name](group, generator(5), policy.process_images), first)
    assert not torch.equal(MASKS[name](group, generator(6), policy.process_images), first)
    assert (first.shape, first.dtype) == (patches.shape, patches.dtype)
    assert not torch.equal(first, patches)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(group.patches, patches)


@pytest.mark.parametrize("name", MASKS)
def test_a_prompt_without_a_picture_is_refused(name, policy):
    (group,) = policy.encode([problem("How many?", images=())])
    with pytest.raises(ValueError, match="has no image to mask"):
        MASKS[name](group, generator(), policy.process_images)


@pytest.mark.parametrize("name", REPAINTING)
def test_pictures_of_every_mode_keep_their_size(name, policy):
    for mode in ("L", "RGBA", "P", "1"):
        image = noise_image(31, 47).convert(mode)
        (group,) = policy.encode([problem(images=(image,))])
        assert MASKS[name](group, generator(), policy.process_images).shape == group.patches.shape


def test_diffusion_coefficients_by_hand():
    """abar_0 = 1 - beta_0 with beta_0 = sigmoid(-6) (5e-3 - 1e-5) + 1e-5; noise keeps the square sum at 1."""
    first = 1 - (1 / (1 + np.exp(6.0)) * (5e-3 - 1e-5) + 1e-5)
    signal, noise = diffusion_coefficients(0)
    assert signal == pytest.approx(first**0.5, abs=1e-7)
    assert noise == pytest.approx((1 - first) ** 0.5, rel=2e-3)
    for step in (0, 300, 999):
        signal, noise = diffusion_coefficients(step)
        assert signal**2 + noise**2 == pytest.approx(1.0, abs=1e-6)


def test_noise_is_scaled_cut_and_rounded_down():
    image = Image.fromarray(np.array([[[100, 0, 255]]], dtype=np.uint8))
    signal, noise = diffusion_coefficients(500)
    drawn = torch.tensor([[[0.1]], [[-1.0]], [[1.0]]])
    noisy = DiffusionNoiseMask(noise_step=500, seed=0).with_noise(image, drawn)
    assert array(noisy).tolist() == [[[int(signal * 100 + noise * 25.5), 0, 255]]]


def test_noise_fades_over_a_run():
    def noise(**settings):
        plain = {
            "initial_step": 500,
            "decay": "sigmoid",
            "steepness": 10.0,
            "middle": 0.5,
            "seed": 0,
        }
        return AnnealedDiffusionNoise(**plain | settings)

    steps = [noise().at(progress).noise_step for progress in (0.0, 0.5, 1.0)]
    assert steps == [496, 250, 3]
    assert noise(decay="power", steepness=1.0).at(0.25).noise_step == 375
    assert noise(decay="exponential", steepness=0.25).at(0.5).noise_step == 250
    assert noise(decay="none").at(0.9).noise_step == 500


def test_a_rectangle_of_its_size_is_black_and_nothing_else():
    white = Image.new("RGB", (20, 10), "white")
    places = set()
    for seed in range(40):
        black = array(CropFillMask(size=0.3, seed=0).repaint(white, generator(seed))).sum(2) == 0
        rows, columns = np.nonzero(black)
        assert black.sum() == 6 * 3
        assert (np.ptp(rows), np.ptp(columns)) == (2, 5)
        places.add((rows.min(), columns.min()))
    assert {column for _, column in places} >= {0, 14} or len(places) > 20


def test_fifty_rectangles_cover_about_a_third_with_noise():
    white = Image.new("RGB", (200, 200), "white")
    mask = OcclusionMask(rectangles=50, size=[0.05, 0.15], seed=0)
    covered = [
        (array(mask.repaint(white, generator(seed))).sum(2) != 765).mean() for seed in range(5)
    ]
    assert 0.3 < np.mean(covered) < 0.45


def test_a_crop_is_enlarged_to_the_size_of_the_picture():
    """A picture whose left half is black: what is cut out of it has no other levels, in the same order."""
    image = Image.new("RGB", (100, 100), "white")
    image.paste((0, 0, 0), (0, 0, 50, 100))
    zoomed = array(ZoomCropMask(size=[0.5, 0.5], seed=0).repaint(image, generator(1)))
    assert zoomed.shape == (100, 100, 3)
    assert (np.diff(zoomed[50, :, 0]) >= 0).all()


def test_perspective_takes_moved_corners_back():
    corners = [(0, 0), (9, 0), (9, 7), (0, 7)]
    moved = [(1, 2), (8, 0), (7, 6), (0, 5)]
    a, b, c, d, e, f, g, h = perspective_coefficients(corners, moved)
    for (x, y), (u, v) in zip(corners, moved, strict=True):
        below = g * u + h * v + 1
        assert ((a * u + b * v + c) / below, (d * u + e * v + f) / below) == pytest.approx(
            (x, y), abs=1e-9
        )
    assert perspective_coefficients(corners, corners) == pytest.approx((1, 0, 0, 0, 1, 0, 0, 0))


def test_perspective_is_half_of_the_time_the_identity():
    image = noise_image(40, 60)
    mask = PerspectiveMask(distortion=0.2, probability=0.5, seed=0)
    same = [
        (array(mask.repaint(image, generator(seed))) == array(image)).all() for seed in range(100)
    ]
    assert 35 <= sum(same) <= 65


def test_one_of_several_draws_each_about_as_often():
    one = OneOf(masks=[CropFillMask(size=0.2, seed=0), CropFillMask(size=0.9, seed=0)], seed=0)
    white = Image.new("RGB", (30, 30), "white")
    black = [(array(one.repaint(white, generator(seed))) == 0).mean() > 0.5 for seed in range(100)]
    assert 35 <= sum(black) <= 65


def test_grey_is_what_the_processor_makes_of_grey(policy):
    (group,) = policy.encode([problem()])
    width, height = group.problem.images[0].size
    grey = policy.process_images([Image.new("RGB", (width, height), (128, 128, 128))])
    assert torch.equal(BlankMask(level=128)(group, generator(), policy.process_images), grey)


def test_processed_noise_has_its_deviation_and_is_not_cut(policy):
    (group,) = policy.encode([problem()])
    noisy = ProcessedNoiseMask(noise_std=2.0, seed=0)(group, generator(), policy.process_images)
    difference = noisy - group.patches
    assert float(difference.std()) == pytest.approx(2.0, rel=0.05)
    assert float(noisy.max()) > float(group.patches.max()) + 2.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: GaussianNoiseMask(noise_std=1.0, seed=0, rounding="up"),
            r"nearest or down; got 'up'",
        ),
        (lambda: ProcessedNoiseMask(noise_std=0.0, seed=0), "noise_std.*got 0.0"),
        (lambda: DiffusionNoiseMask(noise_step=1000, seed=0), "noise_step.*0 to 999; got 1000"),
        (lambda: CropFillMask(size=0.0, seed=0), "size is a share.*got 0.0"),
        (lambda: OcclusionMask(rectangles=0, size=[0.1, 0.2], seed=0), "rectangles.*got 0"),
        (
            lambda: OcclusionMask(rectangles=5, size=[0.2, 0.1], seed=0),
            r"size is an interval.*\[0.2, 0.1\]",
        ),
        (
            lambda: ZoomCropMask(size=[0.5, 1.5], seed=0),
            r"size is an interval.*up to 1; got \[0.5, 1.5\]",
        ),
        (
            lambda: ColourJitterMask(**{**JITTER, "contrast": [0.0, 1.0]}, seed=0),
            "contrast is an interval",
        ),
        (lambda: RotationMask(degrees=0.0, seed=0), "degrees.*got 0.0"),
        (lambda: PerspectiveMask(distortion=2.0, probability=0.5, seed=0), "distortion.*got 2.0"),
        (lambda: OneOf(masks=[], seed=0), "there is none"),
        (lambda: BlankMask(level=256), "0 to 255; got 256"),
        (
            lambda: AnnealedDiffusionNoise(
                initial_step=5, decay="fast", steepness=1.0, middle=0.5, seed=0
            ),
            "decay is one of sigmoid, power, exponential, none; got 'fast'",
        ),
        (
            lambda: AnnealedDiffusionNoise(
                initial_step=5, decay="exponential", steepness=2.0, middle=0.5, seed=0
            ),
            "below 1 for decay=exponential; got 2.0",
        ),
    ],
)
def test_what_it_refuses_names_the_setting(make, said):
    with pytest.raises(ValueError, match=said):
        make()
