"""Read a photograph's pixels, upright and in sRGB, and its focal length; refuse what is no photograph with a
clear message.
"""

from __future__ import annotations

import io
import math
import re
import stat
import warnings
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from facefit.errors import InputError, PhotoError

MAX_PIXELS = 100_000_000  # 300 MB once decoded; with its copies a photograph stays well under 2 GB of memory
MAX_BYTES = 500_000_000
MIN_SIDE = 16  # pixels; no face can be made out in less
_BACKGROUND = 128  # what shines through a transparent picture
_DIAGONAL_35MM = math.hypot(36.0, 24.0)


def read_pixels(path: str | Path) -> tuple[UInt8[np.ndarray, "H W 3"], float | None]:
    """The upright sRGB pixels (H, W, 3) uint8 and the EXIF focal length in pixels (None where there is none
    to trust).

    Grey, transparent (laid over mid-grey), palette, CMYK and 16-bit pictures become 8-bit RGB; an embedded
    colour profile is converted to sRGB; of several frames the first is taken. The size is checked before
    anything is decoded.

    Raises:
        InputError: the path is missing, a folder, empty, no picture, or too large.
        PhotoError: the picture is damaged or too small to show a face.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow warns of large pictures and of odd EXIF data; both are dealt with here
            image = Image.open(io.BytesIO(data))
            _check_size(path, image.size)
            exif = _exif(image)
            if image.mode == "I;16" or image.mode.startswith(("I", "F")):
                pixels = _deep_grey(image)
            else:
                ImageOps.exif_transpose(image, in_place=True)  # spares large photographs a copy
                pixels = np.asarray(_to_rgb(image))
    except Image.DecompressionBombError as error:  # "Image size (N pixels) exceeds limit of ..."
        number = re.search(r"\d+", str(error))
        size = f"{int(number[0]) / 1e6:.0f} million pixels" if number else "More than 178 million pixels"
        raise InputError(_too_large(path, size)) from None
    except UnidentifiedImageError:
        return _read_with_opencv(path, data), None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(
            f"{path}: the picture is damaged and cannot be decoded in full ({error}). "
            "Copy it again from its source, or open it in an image editor and save it anew."
        ) from None
    pixels = np.ascontiguousarray(pixels)
    _check_small(path, pixels.shape[1], pixels.shape[0])
    return pixels, focal_from_exif(exif, (pixels.shape[1], pixels.shape[0]))


def focal_from_exif(exif: dict[int, float], size: tuple[int, int]) -> float | None:
    """Focal length in pixels of a picture `size` = (width, height), from the EXIF tags as numbers.

    Two sources: the focal length with the sensor's resolution (tags 0x920A, 0xA20E-0xA210; scaled where the
    picture was resized after it was taken), and the 35 mm equivalent (0xA405), which is defined by the
    diagonal. Where both exist and disagree by more than 15 % the equivalent wins, as editors leave stale
    sensor resolutions behind. None where the picture was cropped (its proportions differ from those the
    camera wrote down) or the result is not believable (outside 0.4 to 30 times the longer side).
    """
    width, height = size
    taken = (exif.get(0xA002, 0.0), exif.get(0xA003, 0.0))
    if min(taken) > 0:
        ratio_taken, ratio = max(taken) / min(taken), max(size) / min(size)
        if abs(ratio / ratio_taken - 1) > 0.02:
            return None
    candidates = []
    if exif.get(0xA405, 0.0) > 0:
        candidates.append(exif[0xA405] * math.hypot(width, height) / _DIAGONAL_35MM)
    per_mm = {2.0: 1 / 25.4, 3.0: 1 / 10.0, 4.0: 1.0, 5.0: 1000.0}.get(exif.get(0xA210, 2.0))
    if exif.get(0x920A, 0.0) > 0 and exif.get(0xA20E, 0.0) > 0 and per_mm and min(taken) > 0:
        focal = exif[0x920A] * exif[0xA20E] * per_mm * max(size) / max(taken)
        if not candidates or abs(focal / candidates[0] - 1) < 0.15:
            candidates.insert(0, focal)
    believable = [c for c in candidates if 0.4 <= c / max(size) <= 30]
    return float(believable[0]) if believable else None


def _read_bytes(path: Path) -> bytes:
    """The file's bytes, read here rather than by a decoder because OpenCV cannot open every name."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path}: is a folder, not a photograph. Name the picture files in it.")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is not an ordinary file. Give the path of a picture file.")
        if status.st_size == 0:
            raise InputError(f"{path}: the file is empty. Copy the photograph again from its source.")
        if status.st_size > MAX_BYTES:
            raise InputError(
                f"{path}: {status.st_size / 1e6:.0f} MB is too large for a photograph. Save it as a JPEG."
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. Check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}). Check the path and its permissions.") from None


def _too_large(path: Path, size: str) -> str:
    return (
        f"{path}: too large. {size} are too many; at most {MAX_PIXELS // 1_000_000} million are read "
        "(10000 x 10000). Scale the picture down; about 2000 pixels across the face are more than enough."
    )


def _check_size(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(_too_large(path, f"{size[0]} x {size[1]} pixels"))


def _check_small(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            f"{path}: the picture has only {width} x {height} pixels, too few to show a face. "
            "Use a larger copy of it."
        )


def _exif(image: Image.Image) -> dict[int, float]:
    """The EXIF tags that are numbers."""
    try:
        tags = dict(image.getexif().get_ifd(0x8769))
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        return {}
    numbers = {}
    for tag, value in tags.items():
        try:
            number = float(value[0] if isinstance(value, tuple) else value)
        except (TypeError, ValueError, ZeroDivisionError, IndexError):
            continue
        if math.isfinite(number):
            numbers[tag] = number
    return numbers


def _deep_grey(image: Image.Image) -> np.ndarray:
    """Grey pictures of more than 8 bits, which Pillow would clip instead of scaling: 16 bits, or floats in
    [0, 1].
    """
    values = np.asarray(image, np.float32)
    full = (
        1.0
        if image.mode.startswith("F") and values.max() <= 1.0
        else 255.0
        if values.max() <= 255
        else 65535.0
    )
    grey = Image.fromarray(np.clip(values * (255 / full) + 0.5, 0, 255).astype(np.uint8))
    grey.info["exif"] = image.info.get("exif", b"")
    return np.asarray(ImageOps.exif_transpose(grey).convert("RGB"))


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB from any mode; profiles converted, transparency laid over mid-grey."""
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if image.mode in ("P", "1", "RGBA"):
        profile, image = image.info.get("icc_profile"), image.convert("RGB")
    else:
        profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                image = ImageCms.profileToProfile(
                    image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile, or one for another mode: the numbers are taken as sRGB
    image = image if image.mode == "RGB" else image.convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, (_BACKGROUND,) * 3), alpha)
    return image


def _read_with_opencv(path: Path, data: bytes) -> np.ndarray:
    """Formats that Pillow does not know and OpenCV does (16-bit RGB TIFF among them); OpenCV limits the size
    itself.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise InputError(f"{path}: is not a picture that can be read. Give a JPEG, PNG, WebP or TIFF file.")
    _check_size(path, (decoded.shape[1], decoded.shape[0]))
    _check_small(path, decoded.shape[1], decoded.shape[0])
    return np.ascontiguousarray(decoded[:, :, ::-1])
