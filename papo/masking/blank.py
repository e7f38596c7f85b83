"""Hiding everything: each image becomes black, its size stays."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from papo.masking.black import black_patches
from papo.types import PromptGroup


class BlankMask:
    """Blackens every image entirely: mask ratio 1 on any grid (arXiv:2507.06448v5, ablation)."""

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: Callable[[Sequence[Image.Image]], Float[Tensor, "patch pixel"]],
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of all-black images, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image.
        """
        return black_patches(group, process_images)
