"""Reading photographs: every mode and orientation gives the same upright sRGB pixels, and bad files one clear
message.
"""

from __future__ import annotations

import io
import math
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from facefit.errors import InputError, PhotoError
from facefit.photo import read_pixels
from facefit.photo.read import focal_from_exif

ROWS, COLUMNS = np.mgrid[0:48, 0:64]
PICTURE = np.stack([ROWS * 5, COLUMNS * 4, 255 - ROWS * 3 - COLUMNS], -1).astype(np.uint8)
GREY = PICTURE[..., 1]
NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)


def mean_difference(a, b) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }[orientation](PICTURE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_pixels(path)[0], PICTURE)


def test_modes_become_rgb(tmp_path):
    image = Image.fromarray(PICTURE)
    grey = Image.fromarray(GREY)
    cases = {
        "rgb.png": (image, PICTURE, 0.0),
        "rgb.webp": (image, PICTURE, 3.0),
        "grey.png": (grey, np.repeat(GREY[..., None], 3, 2), 0.0),
        "palette.png": (image.quantize(256), PICTURE, 6.0),
        "cmyk.jpg": (image.convert("CMYK"), PICTURE, 4.0),
        "deep.png": (Image.fromarray(GREY.astype(np.uint16) * 257), np.repeat(GREY[..., None], 3, 2), 0.6),
        "deep.tif": (Image.fromarray(GREY.astype(np.uint16) * 257), np.repeat(GREY[..., None], 3, 2), 0.6),
    }
    for name, (source, expected, tolerance) in cases.items():
        source.save(tmp_path / name)
        pixels, _ = read_pixels(tmp_path / name)
        assert pixels.dtype == np.uint8 and pixels.shape == PICTURE.shape, name
        assert mean_difference(pixels, expected) <= tolerance, name


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bit_colour_keeps_its_upper_byte(tmp_path, name):
    encoded = cv2.imencode(name[-4:], PICTURE[..., ::-1].astype(np.uint16) * 257)[1]
    (tmp_path / name).write_bytes(encoded.tobytes())
    assert mean_difference(read_pixels(tmp_path / name)[0], PICTURE) <= 0.6


def test_transparency_shows_mid_grey(tmp_path):
    alpha = np.zeros_like(GREY)
    alpha[:, :32] = 255
    Image.fromarray(np.dstack([PICTURE, alpha])).save(tmp_path / "clear.png")
    pixels, _ = read_pixels(tmp_path / "clear.png")
    np.testing.assert_array_equal(pixels[:, :32], PICTURE[:, :32])
    assert (pixels[:, 32:] == 128).all()


def test_an_srgb_profile_changes_nothing_and_a_broken_one_is_ignored(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, data in (("profile.png", profile), ("broken.png", b"nonsense" * 20)):
        Image.fromarray(PICTURE).save(tmp_path / name, icc_profile=data)
        np.testing.assert_array_equal(read_pixels(tmp_path / name)[0], PICTURE)


def test_names_with_spaces_and_other_alphabets(tmp_path):
    path = tmp_path / "Фото зе мной 顔 é.png"
    Image.fromarray(PICTURE).save(path)
    np.testing.assert_array_equal(read_pixels(path)[0], PICTURE)


def bomb() -> bytes:
    """A PNG that says it has 20,000 x 20,000 pixels; only its header is ever looked at."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, error, words",
    [
        (b"", InputError, "empty"),
        (b"This is no picture.", InputError, "not a picture"),
        (bomb(), InputError, "too large"),
        (encoded(NOISE, "JPEG")[:9000], PhotoError, "damaged"),
        (encoded(NOISE, "PNG")[:9000], PhotoError, "damaged"),
        (encoded(PICTURE[:1, :1], "PNG"), PhotoError, "1 x 1"),
    ],
)
def test_bad_files_get_a_message_with_their_name_and_a_remedy(tmp_path, content, error, words):
    path = tmp_path / "my photo.jpg"
    path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        read_pixels(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_pixels(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="folder"):
        read_pixels(tmp_path)


def test_focal_length_from_the_35_mm_equivalent_is_by_the_diagonal():
    focal = focal_from_exif({0xA405: 50.0}, (3600, 2400))
    assert focal == pytest.approx(50.0 / 36.0 * 3600)  # the 3:2 picture has the film's own proportions
    assert focal_from_exif({0xA405: 50.0}, (4000, 3000)) == pytest.approx(50 * 5000 / math.hypot(36, 24))


def test_focal_length_from_the_sensor_follows_resizing_but_not_cropping():
    tags = {0x920A: 50.0, 0xA20E: 4000.0, 0xA210: 3.0, 0xA002: 6000.0, 0xA003: 4000.0}  # 400 pixels a mm
    assert focal_from_exif(tags, (6000, 4000)) == pytest.approx(20000)
    assert focal_from_exif(tags, (3000, 2000)) == pytest.approx(10000)
    assert focal_from_exif(tags, (2000, 3000)) == pytest.approx(10000)  # turned
    assert focal_from_exif(tags, (3000, 3000)) is None  # cropped


def test_an_unbelievable_focal_length_is_none():
    assert focal_from_exif({0xA405: 1.0}, (3000, 2000)) is None
    assert focal_from_exif({0xA405: 5000.0}, (3000, 2000)) is None
    assert focal_from_exif({}, (3000, 2000)) is None


def test_focal_length_is_read_from_the_file(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=exif)
    focal = read_pixels(tmp_path / "a.jpg")[1]
    assert focal == pytest.approx(28 * 80 / math.hypot(36, 24))
