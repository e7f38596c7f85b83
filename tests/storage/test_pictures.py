"""Pictures from elsewhere: which formats, how large, from what kind of file."""

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from data.test_problem_table import table, write_jsonl
from PIL import EpsImagePlugin, Image, PngImagePlugin

from papo.data.images import decode_image
from papo.data.problem_error import ProblemError
from papo.storage.pictures import (
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    PictureError,
    open_picture,
    opened_picture,
)

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def encoded(image_format: str, size: tuple[int, int] = (9, 7)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, image_format)
    return buffer.getvalue()


def one_bit_png(side: int) -> bytes:
    """A square white picture of a few kilobytes, however many pixels it has."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    rows = (b"\0" + b"\xff" * -(-side // 8)) * side
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("image_format", [*FORMATS, "MPO"])
def test_a_picture_of_each_format_of_the_list_is_read(image_format):
    image = decode_image(encoded(image_format), None)
    assert (image.mode, image.size) == ("RGB", (9, 7))
    red, green, blue = image.getpixel((4, 3))
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize("image_format", ["EPS", "PDF", "TGA", "PCX", "SGI", "ICO", "ICNS"])
def test_a_picture_of_another_format_is_named_and_no_program_is_started(
    image_format, monkeypatch, tmp_path
):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: started.append(1))
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    stored = EPS if image_format == "EPS" else encoded(image_format)
    with pytest.raises(ProblemError, match=r"is not a picture of a known format \(BMP, GIF"):
        decode_image(stored, None)
    (tmp_path / "picture.png").write_bytes(stored)
    assert open_picture(tmp_path / "picture.png", max_side=100) is None
    assert not started


def test_a_small_file_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch, tmp_path):
    stored = one_bit_png(12_000)
    assert len(stored) < 50_000
    decoded = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: decoded.append(1))
    with pytest.raises(ProblemError, match="12000 x 12000 pixels; at most 89,478,485") as error:
        decode_image(stored, None)
    assert error.value.reason == "broken_image"
    (tmp_path / "picture.png").write_bytes(stored)
    assert open_picture(tmp_path / "picture.png", max_side=100) is None
    assert not decoded


def test_the_limit_of_pixels_is_the_most_that_is_read():
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    stored = one_bit_png(40)
    with opened_picture(stored, max_pixels=1600) as image:
        assert image.convert("RGB").getpixel((39, 39)) == (255, 255, 255)
    with (
        pytest.raises(PictureError, match="40 x 40 pixels"),
        opened_picture(stored, max_pixels=1599),
    ):
        pass


def test_a_file_larger_than_any_picture_is_not_read(tmp_path):
    path = tmp_path / "picture.webp"
    path.write_bytes(encoded("WEBP"))
    os.truncate(path, MAX_BYTES + 1)
    with pytest.raises(ProblemError, match="bytes; at most"):
        decode_image(str(path), None)


def special_file(kind: str, path: Path) -> None:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "nothing":
            path.symlink_to("nowhere.png")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "nothing"])
def test_what_is_no_regular_file_is_a_broken_image_and_never_waited_for(kind, tmp_path):
    special_file(kind, tmp_path / "picture.png")
    write_jsonl(tmp_path, [{"problem": "<image>?", "answer": "1", "images": ["picture.png"]}])
    with pytest.raises(ProblemError) as error:
        table(path=str(tmp_path))[0]
    assert error.value.reason == "broken_image"
    assert open_picture(tmp_path / "picture.png", max_side=9) is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl"])
def test_a_table_that_is_no_regular_file_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="holds no split 'train'"):
        len(table(path=str(tmp_path)))


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (9, 7), (0, 0, shade)) for shade in range(0, 250, 10)]
    for image_format in ("GIF", "PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:])
        assert decode_image(buffer.getvalue(), None).getpixel((4, 3)) == (0, 0, 0)


@pytest.mark.parametrize("stored", [b"", b"\x89PNG\r\n\x1a\n", encoded("JPEG")[:200], b"BM" * 99])
def test_a_damaged_picture_is_a_broken_image(stored, tmp_path):
    with pytest.raises(ProblemError) as error:
        decode_image({"bytes": stored, "path": "named.png"}, None)
    assert error.value.reason == "broken_image"
    assert "named.png" in str(error.value)


@pytest.mark.parametrize("stored", [{"bytes": 5}, {"bytes": "text"}, {"path": 5}, {"path": "a\0b"}])
def test_what_is_no_picture_at_all_is_a_broken_image(stored, tmp_path):
    with pytest.raises(ProblemError) as error:
        decode_image(stored, tmp_path)
    assert error.value.reason == "broken_image"
