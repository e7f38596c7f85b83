"""What a data set hands out (Problem) and what a policy reads (PromptGroup)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int, UInt8
from PIL.Image import Image
from torch import Tensor

from papo.types.picture import PictureLayout

IMAGE_MARKER = "<image>"
"""Stands in `Problem.question` where a picture belongs, once per picture."""

IMAGE = "image"
"""The name of the view that shows the prompt as it is."""


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
        system_prompt: what the system's turn before the question says; None leaves it to the chat template.
    """

    id: str
    question: str
    answer: str
    images: tuple[Image, ...]
    source: str
    truth: Mapping[str, Any] | None = None
    system_prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptGroup:
    """One encoded prompt: what all G responses to a problem share.

    Attributes:
        problem: where it came from.
        prompt_ids: token ids of the prompt, image slots already expanded.
        position_ids: of the prompt tokens, on as many axes as the model family counts positions.
        next_position: the position of the first response token on all axes.
        patches: what the family's processor made of all images, a row per patch, one image after another; None
            without images. Levels of 256 where they are held packed (papo.models.pixel_levels), which masks do
            not read.
        pictures: of each image, where its patches and image tokens lie.
        views: the prompt as other views show it, by the name of the view: to all responses alike, or to each
            in its own way.
        salient_above: of a counterfactual view, how many standard deviations above their mean the attention weights
            are whose looks at a picture are replaced; None: the decoder reads as it is.
    """

    problem: Problem
    prompt_ids: Int[Tensor, " prompt_token"]
    position_ids: Int[Tensor, "axis prompt_token"]
    next_position: int
    patches: Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"] | None = None
    pictures: tuple[PictureLayout, ...] = ()
    views: Mapping[str, tuple["PromptGroup", ...]] = field(default_factory=dict)
    salient_above: float | None = None

    def shown_in(self, view: str) -> tuple["PromptGroup", ...]:
        """Returns the prompt as a view shows it: one prompt, or one for each response.

        Raises:
            ValueError: a view of pictures that nothing has made.
        """
        if view in self.views:
            return self.views[view]
        if view == IMAGE or self.patches is None:
            return (self,)
        raise ValueError(
            f"problem {self.problem.id!r} has images but no view {view!r}; a View makes it (masking=)"
        )
