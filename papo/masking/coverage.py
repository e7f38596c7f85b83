"""How much a mask hid, as the language model sees it."""

from papo.masking.black import black_patches, image_patches
from papo.types import ProcessImages, PromptGroup


def black_token_fraction(
    masked: PromptGroup,
    process_images: ProcessImages,
    *,
    merge_size: int,
) -> float:
    """Returns the share of image tokens that are entirely black, 0 to 1.

    Args:
        masked: a prompt with masked patches.
        process_images: the processor the prompt was encoded with.
        merge_size: patches along each side of one image token.

    Raises:
        ValueError: the prompt has no image.
    """
    is_black = (image_patches(masked) == black_patches(masked, process_images)).all(dim=1)
    return float(is_black.view(-1, merge_size**2).all(dim=1).float().mean())
