"""Pictures from elsewhere, which may be damaged or far too large."""

from pathlib import Path

from PIL import Image


def open_picture(path: Path, *, max_side: int) -> Image.Image | None:
    """Returns the RGB picture shrunk to `max_side` pixels; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    # Pillow raises the first three for damaged files, by their kind.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture.thumbnail((max_side, max_side))
    return picture
