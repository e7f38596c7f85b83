"""Gaussian noise: nothing is hidden outright, everything is harder to read."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from papo.masking.black import image_patches, like_patches
from papo.types import PromptGroup


class GaussianNoiseMask:
    """Adds independent Gaussian noise to every pixel and channel of each picture before resizing.

    The alternative to masking that the paper shows and finds too weak (arXiv:2507.06448v5,
    Figure 3). Levels are rounded and cut off at black and white. A picture that is shrunk for the
    model has its noise averaged, so the same deviation hides less of a large picture.

    Args:
        noise_std: standard deviation in grey levels, of 0 to 255.
        seed: of the noise alone; the caller mixes it into the generator it hands over.

    Raises:
        ValueError: the deviation is not a finite number above 0.
    """

    def __init__(self, *, noise_std: float, seed: int) -> None:
        if not 0.0 < noise_std < float("inf"):
            raise ValueError(
                f"noise has a finite standard deviation above 0, in grey levels of 0 to 255; got "
                f"{noise_std}. Set masking.noise_std."
            )
        self.noise_std = noise_std
        self.seed = seed

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: Callable[[Sequence[Image.Image]], Float[Tensor, "patch pixel"]],
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of the noisy images, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image.
        """
        image_patches(group)
        noisy = [self._with_noise(image, generator) for image in group.problem.images]
        return like_patches(group, process_images(noisy))

    def _with_noise(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        levels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
        noise = torch.randn(levels.shape, generator=generator, device=generator.device).cpu()
        noisy = (levels + self.noise_std * noise).round().clamp(0, 255)
        return Image.fromarray(noisy.to(torch.uint8).numpy())
