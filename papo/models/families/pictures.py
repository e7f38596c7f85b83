"""What a family's image processor makes of a picture, in the order that everybody else reads."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from papo.types import PictureLayout


class FamilyPictures(ABC):
    """What a family's image processor makes of pictures, as patches in the order of PictureLayout.

    Uses processors without torchvision, so that every machine has the same patches.

    Args:
        processor: of Hugging Face.
        tokenizer: with a chat template that writes one placeholder per image.
        config: of the model.

    Attributes:
        placeholder_id: what the chat template writes for an image.
        frames: how often a row of patches repeats a still picture along time.
    """

    processor_class: ClassVar[Any]
    processor_names: ClassVar[tuple[str, ...]]
    """What checkpoints call it."""
    served: ClassVar[bool] = False
    """A rollout server makes the same patches and tokens of a picture that it is sent as `shown`."""

    def __init__(
        self, processor: Any, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> None:
        self.processor, self.config = processor, config
        self.tokenizer = tokenizer
        self.image_token_id = int(config.image_token_id)
        self.placeholder_id = self.image_token_id
        self.frames = int(getattr(processor, "temporal_patch_size", 1))

    @abstractmethod
    def limit(self, *, min_pixels: int | None, max_pixels: int | None) -> None:
        """Images are enlarged to at least, and shrunk to at most, so many pixels; None keeps the processor's."""

    @property
    @abstractmethod
    def limits(self) -> tuple[int, int]:
        """What `limit` has set, or the processor's own."""

    @abstractmethod
    def layout(self, height: int, width: int) -> PictureLayout:
        """How a picture of this size will lie, without processing it."""

    @abstractmethod
    def process(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], tuple[PictureLayout, ...]]:
        """Normalised patches of RGB pictures, one after another, and how each lies."""

    def framed(self, rendered: str) -> str:
        """The text of a prompt with what the family writes around placeholders."""
        return rendered

    @abstractmethod
    def prompt_ids(self, picture: PictureLayout) -> list[int]:
        """The tokens that stand for a picture in place of its placeholder."""

    def shown(self, patches: Float[Tensor, "patch pixel"], picture: PictureLayout) -> Image.Image:
        """What the tower sees of a picture, thumbnail aside: undoes the normalisation and the cutting."""
        mean, deviation = (
            torch.tensor(values)[:, None, None]
            for values in (self.processor.image_mean, self.processor.image_std)
        )
        side = round((patches.shape[1] / (3 * self.frames)) ** 0.5)
        cells = picture.over_picture(patches.unflatten(1, (3, self.frames, side, side))[:, :, 0])
        rows, columns = picture.grid
        pixels = cells.permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side)
        levels = ((pixels * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(levels.permute(1, 2, 0).numpy())
