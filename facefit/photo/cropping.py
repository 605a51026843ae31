"""Cut squares out of photographs, with the matrix that leads back, or mirror them; never aliases."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from facefit.color import srgb_to_linear


def square_to_photo(center_xy, side: float, size: int, angle: float = 0.0) -> Float[np.ndarray, "3 3"]:
    """The matrix M of a square cut out of a photograph: photo_xy1 = M @ crop_xy1.

    `side` is the square's side in photo pixels, `size` its side in crop pixels, `angle` (radians) how far its
    x axis is turned towards the photo's y axis (clockwise as seen). Both pictures have the first pixel's
    centre at (.5, .5).
    """
    scale = side / size
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    offset = np.asarray(center_xy, float) - linear @ [size / 2, size / 2]
    return np.array([[*linear[0], offset[0]], [*linear[1], offset[1]], [0.0, 0.0, 1.0]])


def mirror_landmarks(
    points: Float[Array, "*batch L D"], side: int, permutation: Int[np.ndarray, " L"]
) -> Float[Array, "*batch L D"]:
    """Points in a picture `side` pixels wide, in that picture mirrored. NumPy's arrays or JAX's."""
    first = np.eye(points.shape[-1], dtype=np.float32)[0]
    return points[..., permutation, :] * (1 - 2 * first) + side * first


def warp(
    pixels: np.ndarray, crop_to_photo: np.ndarray, size: int, border: int = cv2.BORDER_REPLICATE
) -> np.ndarray:
    """Resample (H, W, C) pixels (any dtype OpenCV knows) into a (size, size, C) crop, bilinear.

    Where the crop is coarser than the photograph, the photograph is first reduced by area averaging to about
    the crop's resolution, over the crop's surroundings only.
    """
    corners = crop_to_photo @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]], float)
    height, width = pixels.shape[:2]
    scale = float(np.sqrt(abs(np.linalg.det(crop_to_photo[:2, :2]))))
    margin = 2 * scale + 2
    x0 = int(np.clip(np.floor(corners[0].min() - margin), 0, width - 1))
    x1 = int(np.clip(np.ceil(corners[0].max() + margin), x0 + 1, width))
    y0 = int(np.clip(np.floor(corners[1].min() - margin), 0, height - 1))
    y1 = int(np.clip(np.ceil(corners[1].max() + margin), y0 + 1, height))
    part = pixels[y0:y1, x0:x1]
    to_part = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
    if scale > 1.2:
        reduced = (max(1, round((x1 - x0) / scale)), max(1, round((y1 - y0) / scale)))
        to_part = np.diag([reduced[0] / (x1 - x0), reduced[1] / (y1 - y0), 1.0]) @ to_part
        part = cv2.resize(part, reduced, interpolation=cv2.INTER_AREA)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])  # OpenCV has the first pixel's centre at (0, 0)
    inverse_map = (np.linalg.inv(half) @ to_part @ crop_to_photo @ half)[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, inverse_map, (size, size), flags=flags, borderMode=border)


def crop(
    pixels: UInt8[np.ndarray, "H W 3"], center_xy, side_px: float, size: int
) -> tuple[Float[np.ndarray, "S S 3"], Float[np.ndarray, "3 3"], Float[np.ndarray, "S S"]]:
    """An upright square of a photograph in linear light, for fitting.

    Returns the crop as linear RGB float32 (size, size, 3); the matrix crop_to_photo, photo_xy1 =
    crop_to_photo @ crop_xy1; and validity (size, size) in [0, 1], which is 0 outside the photograph, where
    the crop repeats the edge. The averaging of down-scaling is done on linear values, as a camera with fewer
    pixels would have done it.
    """
    matrix = square_to_photo(center_xy, side_px, size)
    height, width = pixels.shape[:2]
    corners = matrix @ np.array([[0, size], [0, size], [1, 1]], float)
    margin = 2 * max(side_px / size, 1.0) + 2
    x0, y0 = np.clip(np.floor(corners[:2, 0] - margin), 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(corners[:2, 1] + margin), [x0 + 1, y0 + 1], [width, height]).astype(int)
    part = _linear_of_byte()[pixels[y0:y1, x0:x1]]
    shift = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
    linear = warp(part, shift @ matrix, size)
    inside = warp(np.ones(part.shape[:2], np.float32), shift @ matrix, size, border=cv2.BORDER_CONSTANT)
    return linear.astype(np.float32), matrix.astype(np.float32), inside.astype(np.float32)


@functools.cache
def _linear_of_byte() -> np.ndarray:
    """Linear light of the 256 sRGB values, made on first use because it starts JAX."""
    return np.asarray(srgb_to_linear(np.arange(256, dtype=np.float32) / 255), np.float32)
