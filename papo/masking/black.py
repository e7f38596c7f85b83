"""What black looks like after processing; every mask hides behind it."""

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from papo.types import ProcessImages, PromptGroup

_SIDE = 56  # pixels; any side would do


def image_patches(group: PromptGroup) -> Float[Tensor, "patch pixel"]:
    """Returns the patches of the full images.

    Raises:
        ValueError: the prompt has no image.
    """
    if group.patches is None:
        raise ValueError(
            f"problem {group.problem.id!r} has no image to mask; text-only prompts have no masked "
            "view, so leave them out of masking"
        )
    return group.patches


def black_patches(
    group: PromptGroup,
    process_images: ProcessImages,
    *,
    level: int = 0,
) -> Float[Tensor, "patch pixel"]:
    """Returns the patches of pictures of one grey `level`, black by default, of the sizes of the group's images.

    Black is (0 - mean) / std after normalisation, not 0, which is mid-grey: the processor is asked
    instead of a formula, so the value is that of any model family.

    Raises:
        ValueError: the prompt has no image, or patches of `process_images` have another length.
    """
    patches = image_patches(group)
    # All patches of a black picture are alike, so a small one tells what they look like.
    row = process_images([Image.new("RGB", (_SIDE, _SIDE), (level,) * 3)])[:1]
    if row.shape[1] != patches.shape[1]:
        raise ValueError(
            f"process_images gave patches of {row.shape[1]} values, and those of problem "
            f"{group.problem.id!r} have {patches.shape[1]}; mask with the processor the prompt was "
            "encoded with"
        )
    return row.to(patches).expand_as(patches).contiguous()


def like_patches(
    group: PromptGroup, processed: Float[Tensor, "patch pixel"]
) -> Float[Tensor, "patch pixel"]:
    """Returns `processed` with the device and dtype of `group.patches`, after comparing shapes.

    Raises:
        ValueError: `process_images` cut pictures of the same sizes differently than `encode` did.
    """
    patches = image_patches(group)
    if processed.shape != patches.shape:
        raise ValueError(
            f"process_images gave patches of shape {tuple(processed.shape)} for pictures of the "
            f"same sizes as those of problem {group.problem.id!r}, whose patches have shape "
            f"{tuple(patches.shape)}; mask with the processor the prompt was encoded with"
        )
    return processed.to(patches)
