"""Drawn scenes: a figure with written side lengths, and a question about them.

A scene is one of a shape's operations on whole numbers, a chalk drawing of 56x56 pixels, and the
truth of both. The training prior makes the numbers guessable from the question alone (the text
shortcut that perception-aware training fights); the uniform prior is the counter-prior test.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from papo.lab.shapes import NUMBERS, SHAPES, Shape, shape_of

Prior = Literal["training", "uniform"]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom exclusive."""

IMAGE_SIZE = 56
"""Pixels per side: 4x4 patches of 14, merged 2x2 into 4 image tokens."""


def prior_probabilities(
    operation: str, side: str, *, prior: Prior, zipf_exponent: float
) -> dict[int, float]:
    """Returns the probability of each number 2..9 standing at this side under this question.

    The training prior is p(number) ~ rank ** -zipf_exponent with the ranks of the operation's `prior_order`;
    the uniform prior ignores question, side and exponent.
    """
    order = shape_of(operation).operations[operation].prior_order[side]
    exponent = zipf_exponent if prior == "training" else 0.0
    weights = [rank**-exponent for rank in range(1, len(order) + 1)]
    return {number: weight / sum(weights) for number, weight in zip(order, weights, strict=True)}


def draw_number(
    rng: np.random.Generator, operation: str, side: str, *, prior: Prior, zipf_exponent: float
) -> int:
    """Returns a number 2..9 drawn from `prior_probabilities`."""
    table = prior_probabilities(operation, side, prior=prior, zipf_exponent=zipf_exponent)
    return int(rng.choice(list(table), p=list(table.values())))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _write(
    canvas: ImageDraw.ImageDraw, text: str, center: tuple[int, int], size: int, ink: int
) -> Box:
    """Draws `text` with its ink centred and returns the box of the ink."""
    font = _font(size)
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font, anchor="lt")
    x, y = round(center[0] - (left + right) / 2), round(center[1] - (top + bottom) / 2)
    canvas.text((x, y), text, fill=ink, font=font, anchor="lt")
    return int(x + left), int(y + top), int(x + right), int(y + bottom)


def draw_scene(
    rng: np.random.Generator, shape: Shape, *numbers: int, difficulty: float
) -> tuple[Image.Image, dict[str, Box]]:
    """Returns the picture and the box of each written side length; `numbers` as `shape.sides`.

    Light chalk on a mid-grey board: the board lies near the mean that the image processor
    subtracts, so an untrained vision tower sees strokes on about zero. At difficulty 0 the drawing
    is clean; towards 1 come noise (standard deviation 12 grey levels), jitter (3 pixels), clutter
    (3 lines), a distractor digit inside the figure (half of the time) and low contrast.
    """
    board = int(rng.integers(95, 125))
    contrast = rng.uniform(140 - 60 * difficulty, 140)
    ink = round(board + contrast)
    reach = round(3 * difficulty)
    image = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE), board)
    canvas = ImageDraw.Draw(image)

    dx, dy = rng.integers(-min(reach, 2), min(reach, 2) + 1, size=2).tolist()
    canvas.polygon([(x + dx, y + dy) for x, y in shape.corners], outline=ink)
    for _ in range(round(3 * difficulty)):
        start_and_end = rng.integers(0, IMAGE_SIZE, size=4).tolist()
        canvas.line(start_and_end, fill=round(board + 0.5 * contrast))
    if rng.random() < 0.5 * difficulty:
        x, y = (shape.middle + rng.integers(-3, 4, size=2)).tolist()
        _write(canvas, str(rng.choice(NUMBERS)), (x, y), int(rng.integers(10, 14)), ink)
    boxes = {}
    for (side, (x, y)), number in zip(shape.label_centers.items(), numbers, strict=True):
        jitter_x, jitter_y = rng.integers(-reach, reach + 1, size=2).tolist()
        size = int(rng.integers(14, 18))
        boxes[side] = _write(canvas, str(number), (x + jitter_x, y + jitter_y), size, ink)

    pixels = np.asarray(image, dtype=np.float32)
    noise = rng.normal(0.0, 12.0 * difficulty, size=pixels.shape)
    grey = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB"), boxes


def scene_numbers(truth: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Returns the number of each side of a scene, in reading order; None where it is no scene.

    Truths may come from folders that others wrote: names alone, or numbers that are text, are no scene.
    """
    truth = truth or {}
    for shape in SHAPES.values():
        if truth.get("operation") in tuple(shape.operations):
            numbers = {side: truth.get(side) for side in (*shape.sides, "result")}
            if all(isinstance(number, int) for number in numbers.values()):
                return {side: truth[side] for side in shape.sides}
    return None
