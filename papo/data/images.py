"""A stored picture becomes an RGB image; whatever is wrong with it becomes a ProblemError.

RGB has 8 bits a channel. What has them already becomes what Pillow's convert("RGB") makes of it: 1, L, P, RGB,
CMYK, YCbCr, LAB, and their versions with transparency, which is flattened on white. Wider grey (I;16, I, F)
is rescaled where convert would clip it to 0..255 and so to black and white; see `_levels`.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from papo.data.problem_error import ProblemError
from papo.storage.pictures import PictureError, opened_picture
from papo.types import shown

_LONGEST_PATH = 4096
"""Characters; Linux opens no longer ones."""

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")


def decode_image(stored: Any, folder: Path | None) -> Image.Image:
    """Returns the picture, upright, in RGB, transparency flattened on white.

    Args:
        stored: a path, a `data:` URL, encoded bytes, or the {"bytes", "path"} of a data set's image column.
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
        if encoded is None and isinstance(path, str) and (url := _DATA_URL.match(path)):
            encoded = _decoded(path[url.end() :])
        with opened_picture(_inside(path, folder) if encoded is None else encoded) as image:
            return _rgb(ImageOps.exif_transpose(image))
    except PictureError as error:
        raise ProblemError("broken_image", f"{name} {error}") from error
    except (ValueError, TypeError) as error:
        raise ProblemError(
            "broken_image", f"{name} cannot be read as a picture: {shown(str(error), 300)}"
        ) from error


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is damaged ({error})") from error


def _inside(path: Any, folder: Path | None) -> Path:
    if not isinstance(path, str) or not path:
        raise ValueError("neither bytes nor a path")
    if re.match(r"[A-Za-z][\w+.-]*://", path):
        raise ValueError(
            "no address is fetched: put the picture into the data folder, and write its path"
        )
    if len(path) > _LONGEST_PATH:
        raise ValueError(
            "no path is that long. Pictures in base64 are not read but as data:image/png;base64,...: write them as "
            "files, or as bytes into parquet"
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
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _levels(image).convert("RGB")
    if image.mode == "La":  # the one mode with transparency that Pillow converts to no other
        image = image.convert("LA")
    # Black lines on a transparent ground would vanish on black, which convert("RGB") puts below.
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def _levels(image: Image.Image) -> Image.Image:
    """Returns 256 grey levels of a picture of more: linear, so that a ramp stays one, over the first range that holds.

    * 0..1 of a floating-point picture: scikit-image 0.21, "Image data types and what they mean".
    * 0..255: 8 bits that were stored in more; they stay as they are.
    * 0..65535: 16 bits, ibid., also of an I (how Pillow reads some 16-bit files) and of an F.
    * the smallest to the largest value otherwise (signed or 32-bit pictures): no convention holds for these.

    Infinities are the ends of the range, NaN is black, and the value that a PNG calls transparent is white.
    """
    stored = np.asarray(image)
    finite = stored[np.isfinite(stored)] if image.mode == "F" else stored
    smallest, largest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    ranges = [(0.0, 1.0)] if image.mode == "F" else []
    ranges += [(0.0, 255.0), (0.0, 65535.0), (smallest, largest)]
    low, high = next(one for one in ranges if one[0] <= smallest and largest <= one[1])
    levels = np.nan_to_num(stored.astype(np.float64), nan=low, posinf=high, neginf=low)
    levels -= low
    levels *= 255 / ((high - low) or 1)
    levels = np.rint(levels).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        levels = np.where(stored == transparent, np.uint8(255), levels)
    return Image.fromarray(levels)
