"""Hiding patches of a picture: also in a thumbnail, which shows the whole picture again."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papo.masking.black import black_patches, image_patches
from papo.types import PictureLayout, ProcessImages, PromptGroup


def hide_patches(
    group: PromptGroup, hidden: Bool[Tensor, " first_patch"], process_images: ProcessImages
) -> Float[Tensor, "patch pixel"]:
    """Returns the patches with some black, shaped like `group.patches`.

    A thumbnail is black where it shows what is hidden; a pixel of it shows the patch in which its middle lies.

    Args:
        group: the prompt.
        hidden: of the patches that show their part of the picture first, picture after picture.
        process_images: the processor the prompt was encoded with.

    Raises:
        ValueError: the prompt has no image.
    """
    patches = image_patches(group)
    black = black_patches(group, process_images)
    pixels = []
    parts = hidden.split([picture.num_first for picture in group.pictures])
    for picture, part in zip(group.pictures, parts, strict=True):
        pixels.append(part[:, None].expand(-1, patches.shape[1]))
        if picture.thumbnail:
            pixels.append(_in_thumbnail(picture, part, patches.shape[1]))
    return torch.where(torch.cat(pixels).to(patches.device), black, patches)


def _in_thumbnail(
    picture: PictureLayout, hidden: Bool[Tensor, " first_patch"], channels: int
) -> Bool[Tensor, "patch pixel"]:
    side = round((channels / 3) ** 0.5)
    places = [
        (torch.arange(count * side) * 2 + 1) * total // (2 * count * side)
        for count, total in zip((picture.rows, picture.columns), picture.grid, strict=True)
    ]
    seen = picture.over_picture(hidden)[places[0][:, None], places[1]]
    cells = seen.unflatten(1, (picture.columns, side)).unflatten(0, (picture.rows, side))
    squares = picture.tiled(1, 1, thumbnail=False).in_rows(cells.transpose(1, 2))
    return squares.flatten(1).repeat(1, 3)
