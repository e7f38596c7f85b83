"""A picture of any mode keeps its contrast; what has 8 bits a channel stays what it is, bit for bit."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from papo.data.images import decode_image

RAMP = np.tile(np.arange(256), (4, 1))
SIXTEEN_BITS = RAMP * 257


def encoded(image, image_format, **settings):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **settings)
    return buffer.getvalue()


def grey(values, dtype):
    return Image.fromarray(values.astype(dtype))


def big_endian(values):
    return Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())


WIDE = {
    "16 bits, PNG": (encoded(grey(SIXTEEN_BITS, np.uint16), "PNG"), "I;16"),
    "16 bits, TIFF": (encoded(grey(SIXTEEN_BITS, np.uint16), "TIFF"), "I;16"),
    "16 bits, JPEG 2000": (encoded(grey(SIXTEEN_BITS, np.uint16), "JPEG2000"), "I;16"),
    "16 bits, big-endian": (encoded(big_endian(SIXTEEN_BITS), "TIFF"), "I;16B"),
    "16 bits, PGM": (encoded(grey(SIXTEEN_BITS, np.int32), "PPM"), "I"),
    "32 bits, signed": (encoded(grey((RAMP - 128) * 9_000_000, np.int32), "TIFF"), "I"),
    "32 bits, all far from 0": (encoded(grey(RAMP * 3 + 2_000_000_000, np.int32), "TIFF"), "I"),
    "0 to 1": (encoded(grey(RAMP / 255, np.float32), "TIFF"), "F"),
    "0 to 1, PFM": (encoded(grey(RAMP / 255, np.float32), "PPM"), "F"),
    "0.0 to 255.0": (encoded(grey(RAMP, np.float32), "TIFF"), "F"),
    "0.0 to 65535.0": (encoded(grey(SIXTEEN_BITS, np.float32), "TIFF"), "F"),
    "-1 to 1": (encoded(grey(RAMP / 127.5 - 1, np.float32), "TIFF"), "F"),
    "to 3e38": (encoded(grey((RAMP - 128) * 2e36, np.float32), "TIFF"), "F"),
}


@pytest.mark.parametrize("name", WIDE)
def test_a_ramp_of_more_than_256_levels_keeps_all_of_its_contrast(name):
    stored, mode = WIDE[name]
    assert Image.open(io.BytesIO(stored)).mode == mode
    image = decode_image(stored, None)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_eight_bits_that_were_stored_in_more_stay_as_they_are(dtype):
    stored = encoded(grey(RAMP // 2, dtype), "TIFF")
    assert np.array_equal(np.asarray(decode_image(stored, None))[..., 0], RAMP // 2)


def test_sixteen_bits_are_rounded_and_a_dark_picture_stays_dark():
    stored = encoded(grey(np.array([[0, 128, 129, 4096, 32768]]), np.uint16), "PNG")
    # 128 / 257 = 0.498, 129 / 257 = 0.502, 4096 / 257 = 15.94, 32768 / 257 = 127.50
    assert np.asarray(decode_image(stored, None))[0, :, 0].tolist() == [0, 0, 1, 16, 128]


def test_what_is_no_number_is_black_and_infinities_are_the_ends():
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf, -np.inf]])
    stored = encoded(grey(values, np.float32), "TIFF")
    assert np.asarray(decode_image(stored, None))[0, :, 0].tolist() == [0, 128, 255, 0, 255, 0]
    for value in (np.nan, 7e8, -3.0):
        stored = encoded(grey(np.full((3, 3), value), np.float32), "TIFF")
        assert np.asarray(decode_image(stored, None)).max() == 0


@pytest.mark.parametrize("transparent", [0, 257 * 7])
def test_the_transparent_level_of_sixteen_bits_is_white(transparent):
    stored = encoded(grey(SIXTEEN_BITS, np.uint16), "PNG", transparency=transparent)
    expected = np.where(transparent == SIXTEEN_BITS, 255, RAMP)
    assert np.array_equal(np.asarray(decode_image(stored, None))[..., 0], expected)


def test_a_picture_of_sixteen_bits_is_turned_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    stored = encoded(grey(SIXTEEN_BITS, np.uint16), "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode_image(stored, None))[:, 0, 0], RAMP[0])


def colours(size=(40, 30)):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA")


EIGHT_BITS = {
    "1": (colours().convert("1"), "PNG"),
    "L": (colours().convert("L"), "PNG"),
    "P": (colours().convert("RGB").quantize(200), "PNG"),
    "RGB": (colours().convert("RGB"), "PNG"),
    "CMYK": (colours().convert("RGB").convert("CMYK"), "TIFF"),
    "YCbCr": (colours().convert("RGB").convert("YCbCr"), "TIFF"),
    "LAB": (Image.merge("LAB", colours().convert("RGB").split()), "TIFF"),
}


@pytest.mark.parametrize("mode", EIGHT_BITS)
def test_eight_bits_a_channel_are_what_pillow_makes_of_them(mode):
    stored = encoded(*EIGHT_BITS[mode])
    opened = Image.open(io.BytesIO(stored))
    assert opened.mode == mode
    assert decode_image(stored, None).tobytes() == opened.convert("RGB").tobytes()


def on_white(image):
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")


@pytest.mark.parametrize(
    ("image", "settings"),
    [
        (colours(), {}),
        (colours().convert("LA"), {}),
        (colours().convert("RGB").quantize(200), {"transparency": 3}),
        (colours().convert("RGB").quantize(200), {"transparency": bytes(range(200))}),
        (colours().convert("L"), {"transparency": 9}),
        (colours().convert("1"), {"transparency": 0}),
    ],
    ids=["RGBA", "LA", "P", "P, levels", "L", "1"],
)
def test_transparency_of_eight_bits_is_flattened_on_white_as_before(image, settings):
    stored = encoded(image, "PNG", **settings)
    expected = on_white(Image.open(io.BytesIO(stored)))
    assert decode_image(stored, None).tobytes() == expected.tobytes()
    assert np.asarray(expected).any()


def test_grey_that_is_premultiplied_with_its_transparency_is_flattened_too():
    pixels = np.full((3, 3, 2), (50, 100), np.uint8)  # of 255: grey 127 that covers 100 parts
    stored = encoded(Image.frombytes("LA", (3, 3), pixels.tobytes()), "TIFF")
    # Tag 338, ExtraSamples: one short, 2 for the plain alpha that Pillow writes, 1 for the associated one.
    tag = struct.pack("<HHI", 338, 3, 1)
    assert stored.count(tag) == 1
    stored = stored.replace(tag + b"\2", tag + b"\1")
    assert Image.open(io.BytesIO(stored)).mode == "La"
    # 50 of the picture and 155 of the white behind it
    assert abs(np.asarray(decode_image(stored, None))[0, 0, 0] - 205) <= 1
