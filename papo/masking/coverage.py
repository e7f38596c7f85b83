"""How much a mask hid: measured on the patches themselves, so a mask that masks nothing shows."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from papo.masking.black import black_patches, image_patches
from papo.types import PromptGroup


def masked_fraction(group: PromptGroup) -> float:
    """Returns the share of a group's patches that the mask changed, 0 to 1.

    On the "patch" and "token" grids it is the hidden share itself, less patches that were black
    before; on the "raw" grid it is larger, since a square reaches into several patches.

    Raises:
        ValueError: the group has no image or was not masked yet.
    """
    masked = _masked_patches(group)
    return float((masked != image_patches(group)).any(dim=1).float().mean())


def black_token_fraction(
    group: PromptGroup,
    process_images: Callable[[Sequence[Image.Image]], Float[Tensor, "patch pixel"]],
    *,
    merge_size: int,
) -> float:
    """Returns the share of image tokens that are entirely black in the masked view, 0 to 1.

    Args:
        group: a masked group.
        process_images: the processor the group was encoded with.
        merge_size: patches along each side of one image token.

    Raises:
        ValueError: the group has no image or was not masked yet.
    """
    masked = _masked_patches(group)
    is_black = (masked == black_patches(group, process_images)).all(dim=1)
    return float(is_black.view(-1, merge_size**2).all(dim=1).float().mean())


def _masked_patches(group: PromptGroup) -> Float[Tensor, "patch pixel"]:
    image_patches(group)
    if group.masked_patches is None:
        raise ValueError(f"problem {group.problem.id!r} was not masked yet: masked_patches is None")
    return group.masked_patches
