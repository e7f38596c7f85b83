"""Pictures from elsewhere, which may be damaged or far too large."""

from pathlib import Path

from PIL import Image

from papo.pictures import PictureError, opened_picture


def open_picture(path: Path, *, max_side: int) -> Image.Image | None:
    """Returns the RGB picture shrunk to `max_side` pixels; None where it cannot be read."""
    try:
        with opened_picture(path) as image:
            picture = image.convert("RGB")
    except PictureError:
        return None
    picture.thumbnail((max_side, max_side))
    return picture
