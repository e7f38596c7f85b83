"""How much a mask hid, as the language model sees it."""

import torch

from papo.masking.black import black_patches, image_patches
from papo.types import ProcessImages, PromptGroup


def black_token_fraction(masked: PromptGroup, process_images: ProcessImages) -> float:
    """Returns the share of image tokens that are entirely black, 0 to 1.

    Args:
        masked: a prompt with masked patches.
        process_images: the processor the prompt was encoded with.

    Raises:
        ValueError: the prompt has no image.
    """
    is_black = (image_patches(masked) == black_patches(masked, process_images)).all(dim=1)
    parts = is_black.split([each.num_patches for each in masked.pictures])
    tokens = [
        part.view(-1, picture.patches_per_token).all(dim=1)
        for part, picture in zip(parts, masked.pictures, strict=True)
    ]
    return float(torch.cat(tokens).float().mean())
