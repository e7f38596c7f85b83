"""Masks that repaint the raw picture; what they leave is processed as the prompt's own pictures were."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from papo.masking.black import image_patches, like_patches
from papo.types import ProcessImages, PromptGroup


class PictureMask(ABC):
    """Repaints every picture of a prompt by itself, before it is resized.

    Args:
        seed: of the mask alone; the caller mixes it into the generator it hands over.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    @abstractmethod
    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        """Returns another picture of the same size.

        Args:
            image: in RGB.
            generator: of all that is drawn.
        """

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: ProcessImages,
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of the repainted images, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image.
        """
        image_patches(group)
        painted = [self.repaint(image.convert("RGB"), generator) for image in group.problem.images]
        return like_patches(group, process_images(painted))


class OneOf(PictureMask):
    """Every picture by one of several masks, all equally likely.

    Args:
        masks: to choose from.
        seed: as of PictureMask; those of the masks are not read.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, *, masks: Sequence[PictureMask], seed: int) -> None:
        super().__init__(seed=seed)
        if not masks:
            raise ValueError("one of several masks is drawn, and there is none. Set masks.")
        self.masks = tuple(masks)

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        return self.masks[whole_number(generator, below=len(self.masks))].repaint(image, generator)


def uniform_number(generator: torch.Generator, low: float, high: float) -> float:
    """Draws a number between two."""
    drawn = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * float(drawn)


def whole_number(generator: torch.Generator, *, below: int) -> int:
    """Draws a whole number from 0 on."""
    return int(torch.randint(below, (), generator=generator, device=generator.device))


def require_interval(name: str, value: Sequence[float], *, most: float) -> tuple[float, float]:
    """Returns an interval (low, high) with 0 < low <= high <= most.

    Raises:
        ValueError: it is none; names the setting.
    """
    pair = tuple(float(each) for each in value)
    if len(pair) != 2 or not 0.0 < pair[0] <= pair[1] <= most:
        raise ValueError(
            f"{name} is an interval [low, high] above 0 and up to {most:g}; got {list(value)}"
        )
    return pair[0], pair[1]
