"""Gaussian noise: nothing is hidden outright, everything is harder to read."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from papo.masking.black import image_patches
from papo.masking.picture import PictureMask
from papo.types import ProcessImages, PromptGroup

_ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {"nearest": torch.round, "down": torch.floor}


class GaussianNoiseMask(PictureMask):
    """Adds independent Gaussian noise to every pixel and channel of each picture before resizing.

    The alternative to masking that the paper shows and finds too weak (arXiv:2507.06448v5,
    Figure 3). Levels are rounded and cut off at black and white. A picture that is shrunk for the
    model has its noise averaged, so the same deviation hides less of a large picture.

    Args:
        noise_std: standard deviation in grey levels, of 0 to 255 (VPPO's alternative: 189).
        seed: of the noise alone; the caller mixes it into the generator it hands over.
        rounding: of levels: nearest, or down, as VPPO's code has it.

    Raises:
        ValueError: the deviation is not a finite number above 0, or another rounding.
    """

    def __init__(self, *, noise_std: float, seed: int, rounding: str = "nearest") -> None:
        super().__init__(seed=seed)
        if not 0.0 < noise_std < float("inf"):
            raise ValueError(
                f"noise has a finite standard deviation above 0, in grey levels of 0 to 255; got "
                f"{noise_std}. Set masking.noise_std."
            )
        if rounding not in _ROUNDINGS:
            raise ValueError(
                f"levels are rounded {' or '.join(_ROUNDINGS)}; got {rounding!r}. Set masking.rounding."
            )
        self.noise_std = noise_std
        self.rounding = rounding

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        levels = torch.from_numpy(np.array(image, dtype=np.float32))
        noise = torch.randn(levels.shape, generator=generator, device=generator.device).cpu()
        return self.with_noise(levels, self.noise_std * noise)

    def with_noise(
        self, levels: Float[Tensor, "row column 3"], noise: Float[Tensor, "row column 3"]
    ) -> Image.Image:
        """Returns the picture of these levels, 0 to 255, and this noise."""
        noisy = _ROUNDINGS[self.rounding]((levels + noise).clamp(0, 255))
        return Image.fromarray(noisy.to(torch.uint8).numpy())


class ProcessedNoiseMask:
    """Adds Gaussian noise to what the vision tower reads, after normalisation, without a cut at black or white.

    VEPO's view (code Leonnnnnn929/VEPO@4247308: deviation 2; its loop adds the noise once for each of the n rows
    that share a picture, so 2 sqrt(n) is what ran).

    Args:
        noise_std: standard deviation, in units of a normalised pixel.
        seed: of the noise alone; the caller mixes it into the generator it hands over.

    Raises:
        ValueError: the deviation is not a finite number above 0.
    """

    def __init__(self, *, noise_std: float, seed: int) -> None:
        if not 0.0 < noise_std < float("inf"):
            raise ValueError(
                f"noise_std is a finite deviation above 0, of normalised pixels; got {noise_std}"
            )
        self.noise_std = noise_std
        self.seed = seed

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: ProcessImages,
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the noisy patches, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image.
        """
        patches = image_patches(group)
        noise = torch.randn(patches.shape, generator=generator, device=generator.device)
        return patches + (self.noise_std * noise).to(patches)
