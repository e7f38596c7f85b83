"""Pictures from elsewhere are opened here and nowhere else: they may be damaged, hostile or far too large."""

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

FORMATS = (
    *("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
    *(("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()),  # Pillow has it since 11.3
)
"""What data sets hold; the MPO of telephones is a JPEG. Pillow knows more, and hands some (EPS) to other programs."""

MAX_PIXELS = 89_478_485
"""As Pillow: 256 MiB at three bytes a pixel; a photograph of 9,459 pixels a side."""

MAX_BYTES = 8 * MAX_PIXELS
"""As many as that takes uncompressed, at 16 bits in four channels."""

_FILTERS = threading.Lock()


class PictureError(ValueError):
    """What was opened is no picture of an allowed format and size, or is damaged.

    Its message wants the name of the picture in front.
    """


@contextmanager
def opened_picture(
    source: Path | bytes, *, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Opens a picture; what decodes it stands inside the block, on its first frame.

    Args:
        source: a regular file, or encoded bytes.
        formats: that are tried, as Pillow names them.
        max_pixels: of one frame; compared before anything is decoded.

    Raises:
        PictureError: it is none of these, is too large, or cannot be decoded, whatever a decoder that
            was fed hostile bytes raised.
    """
    try:
        with _stream(source) as stream, _open(stream, formats) as image:
            if image.width * image.height > max_pixels:
                raise PictureError(
                    f"has {image.width} x {image.height} pixels; at most {max_pixels:,} are decoded"
                )
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"is not a picture of a known format ({', '.join(formats)})") from error
    except Exception as error:
        raise PictureError(f"cannot be read as a picture: {error}") from error


def _open(stream: Any, formats: Sequence[str]) -> Image.Image:
    # Pillow warns of what is refused here. The filters of warnings are all threads'.
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(stream, formats=tuple(formats))


def _stream(source: Path | bytes) -> io.BufferedIOBase:
    if isinstance(source, Path):
        # A fifo would be waited for when it is opened, so it is opened without waiting.
        handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            os.close(handle)
            raise PictureError("is no regular file")
        stream: io.BufferedIOBase = os.fdopen(handle, "rb")
        size = status.st_size
    else:
        stream, size = io.BytesIO(source), len(source)
    if size > MAX_BYTES:
        stream.close()
        raise PictureError(f"has {size:,} bytes; at most {MAX_BYTES:,} are read")
    return stream


def open_picture(path: Path, *, max_side: int) -> Image.Image | None:
    """Returns the RGB picture shrunk to `max_side` pixels; None where it cannot be read."""
    try:
        with opened_picture(path) as image:
            picture = image.convert("RGB")
    except PictureError:
        return None
    picture.thumbnail((max_side, max_side))
    return picture
