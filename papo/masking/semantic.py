"""Semantic masking: what a vision transformer attends to is hidden first."""

from collections.abc import Callable
from math import floor

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papo.masking.black import image_patches
from papo.masking.hidden import hide_patches
from papo.types import ProcessImages, PromptGroup

Saliency = Callable[[PromptGroup], Float[Tensor, " patch"]]
"""How much each row of `group.patches` matters, in their order; larger is hidden first."""


class SemanticMask:
    """Blackens the share `ratio` of each image's patches that matters most.

    Semantic-aware masking of PAPO (arXiv:2507.06448v5, ablation of masking strategies): the top
    floor(ratio * patches) by saliency, ties to the earlier patch. Nothing is drawn at random.

    Args:
        ratio: share of the patches of every image that is hidden, 0 to 1.
        saliency: what a patch matters, e.g. `DinoSaliency`.

    Raises:
        ValueError: the ratio is no share.
    """

    def __init__(self, *, ratio: float, saliency: Saliency) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(
                f"a mask ratio is a share of the patches; got {ratio}. "
                "Set masking.ratio between 0 and 1 (published: 0.6)."
            )
        self.ratio = ratio
        self.saliency = saliency

    def preflight(self) -> None:
        """Says what is missing before training starts; reads no weights.

        Raises:
            FileNotFoundError: the saliency's weights cannot be had.
        """
        if hasattr(self.saliency, "preflight"):
            self.saliency.preflight()

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: ProcessImages,
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of the masked images, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image.
        """
        image_patches(group)
        saliency = self.saliency(group).split([each.num_patches for each in group.pictures])
        hidden = [
            self._most_salient(values[: picture.num_first])
            for values, picture in zip(saliency, group.pictures, strict=True)
        ]
        return hide_patches(group, torch.cat(hidden), process_images)

    def _most_salient(self, saliency: Float[Tensor, " patch"]) -> Bool[Tensor, " patch"]:
        # floor(0.6 * 5) is 2 in floating point.
        num_hidden = floor(self.ratio * len(saliency) + 1e-9)
        order = saliency.argsort(descending=True, stable=True)
        hidden = torch.zeros(len(saliency), dtype=torch.bool, device=saliency.device)
        hidden[order[:num_hidden]] = True
        return hidden
