"""Hiding everything: each image becomes one level of grey, its size stays."""

import torch
from jaxtyping import Float
from torch import Tensor

from papo.masking.black import black_patches
from papo.types import ProcessImages, PromptGroup


class BlankMask:
    """Blackens every image entirely: mask ratio 1 on any grid (arXiv:2507.06448v5, ablation).

    Args:
        level: of all pixels, 0 (black) to 255; VPPO's code has an alternative with 128.

    Raises:
        ValueError: there is no such level.
    """

    def __init__(self, *, level: int = 0) -> None:
        if not 0 <= level <= 255:
            raise ValueError(f"a level of grey is 0 to 255; got {level}. Set masking.level.")
        self.level = level

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: ProcessImages,
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of images of that level, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image.
        """
        return black_patches(group, process_images, level=self.level)
