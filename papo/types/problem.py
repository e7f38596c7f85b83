"""What a data set hands out (Problem) and what a policy reads (PromptGroup)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Int, UInt8
from PIL.Image import Image
from torch import Tensor

IMAGE_MARKER = "<image>"
"""Stands in `Problem.question` where a picture belongs, once per picture."""

View = Literal["image", "masked_image"]
"""Which picture a response is scored against."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """One question about some images, with its reference answer.

    Attributes:
        id: stable within `source`; the same problem has the same id in every run.
        question: the text, with one `<image>` marker per image where the picture stands.
        answer: the reference answer a grader compares with; never empty.
        images: the pictures in the order of their markers; may be empty.
        source: the data set it came from.
        truth: what is known of the picture (a drawn scene, logic forms), for graders that use it.
    """

    id: str
    question: str
    answer: str
    images: tuple[Image, ...]
    source: str
    truth: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptGroup:
    """One encoded prompt: what all G responses to a problem share, in both views.

    Attributes:
        problem: where it came from.
        prompt_ids: token ids of the prompt, image slots already expanded.
        position_ids: M-RoPE positions (time, height, width) of the prompt tokens.
        next_position: the position of the first response token on all three axes.
        patches: processed image patches of all images, one after another; None without images. Levels of
            256 where they are held packed (papo.models.pixel_levels), which masks do not read.
        masked_patches: the same patches of the masked images; None until an ImageMask made them.
        image_grid_thw: patches per image along time, height and width.
    """

    problem: Problem
    prompt_ids: Int[Tensor, " prompt_token"]
    position_ids: Int[Tensor, "3 prompt_token"]
    next_position: int
    patches: Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"] | None = None
    masked_patches: Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"] | None = None
    image_grid_thw: Int[Tensor, "image 3"] | None = None
