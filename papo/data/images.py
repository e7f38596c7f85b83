"""A stored picture becomes an RGB image; whatever is wrong with it becomes a ProblemError."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from papo.data.problem_error import ProblemError
from papo.pictures import PictureError, opened_picture
from papo.types import shown

_LONGEST_PATH = 4096
"""Characters; Linux opens no longer ones."""


def decode_image(stored: Any, folder: Path | None) -> Image.Image:
    """Returns the picture, upright, in RGB, transparency flattened on white.

    Args:
        stored: a path, encoded bytes, or the {"bytes", "path"} of a data set's image column.
        folder: where relative paths start and which they must not leave; None trusts paths.

    Raises:
        ProblemError: there is no such picture, or it cannot be decoded.
    """
    encoded, path = stored, None
    if isinstance(stored, Mapping):
        encoded, path = stored.get("bytes"), stored.get("path")
    elif isinstance(stored, str):
        encoded, path = None, stored
    name = "an image"
    if isinstance(path, str) and path:
        name = shown(path, 300 if len(path) <= _LONGEST_PATH else 30)
    try:
        with opened_picture(_inside(path, folder) if encoded is None else encoded) as image:
            return _rgb(ImageOps.exif_transpose(image))
    except PictureError as error:
        raise ProblemError("broken_image", f"{name} {error}") from error
    except (ValueError, TypeError) as error:
        raise ProblemError(
            "broken_image", f"{name} cannot be read as a picture: {shown(str(error), 300)}"
        ) from error


def _inside(path: Any, folder: Path | None) -> Path:
    if not isinstance(path, str) or not path:
        raise ValueError("neither bytes nor a path")
    if len(path) > _LONGEST_PATH:
        raise ValueError(
            "no path is that long. Pictures in base64 are not read: write them as files, or as bytes "
            "into parquet"
        )
    if folder is None:
        return Path(path)
    # A table from elsewhere must not read files of this machine. Links inside the folder are its
    # owner's (the hub's cache is made of them), so the check is of the path as written; the folder
    # itself may be written relatively or be reached through a link.
    inside = Path(os.path.abspath(folder))
    written = Path(os.path.normpath(inside / path))
    real = written.resolve()
    if not (written.is_relative_to(inside) or real.is_relative_to(inside.resolve())):
        raise ValueError(f"its path leaves the data folder {folder}")
    return written


def _rgb(image: Image.Image) -> Image.Image:
    # Black lines on a transparent ground would vanish on black, which convert("RGB") puts below.
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image.convert("RGB")
