"""One photograph with the posed mesh before its camera, and what is drawn from it without compiling anew."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
from facefit_kernels import rasterize, unwrap
from jaxtyping import Float, Int, UInt8

from facefit.color import srgb_to_linear
from facefit.export.checks import require_finite
from facefit.render.camera import clip_coordinates
from facefit.render.lighting import irradiance


@dataclasses.dataclass(frozen=True)
class PosedView:
    """A photograph and the mesh that was fitted to it.

    Attributes:
        pixels: sRGB, upright, (H, W, 3).
        vertices: in the OpenCV camera frame, millimetres, (V, 3).
        matrix: pinhole matrix of the photograph, first pixel's centre at (0.5, 0.5), (3, 3).
        lighting: spherical harmonics, linear RGB, camera frame, (9, 3).
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    vertices: Float[np.ndarray, "V 3"]
    matrix: Float[np.ndarray, "3 3"]
    lighting: Float[np.ndarray, "9 3"]

    def __post_init__(self) -> None:
        for name in ("vertices", "matrix", "lighting"):
            require_finite(np.asarray(getattr(self, name)), name)


@functools.lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Linear light of the 256 sRGB bytes, and the byte for each of 65,536 steps of linear light.

    On the host and by table, since pictures come in every size and each would make JAX compile anew.
    """
    halves = np.asarray(srgb_to_linear(np.arange(511, dtype=np.float32) / 510))
    steps = np.searchsorted(halves[1::2], np.arange(65536, dtype=np.float32) / 65535)
    return halves[::2].copy(), steps.astype(np.uint8)


def from_bytes(pixels: UInt8[np.ndarray, "H W C"]) -> Float[np.ndarray, "H W C"]:
    """sRGB bytes to linear light in [0, 1]."""
    return _tables()[0][pixels]


def to_bytes(linear: Float[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W C"]:
    """Linear light to sRGB bytes, clipped to [0, 1]."""
    return _tables()[1][np.round(np.clip(linear, 0, 1) * 65535).astype(np.uint16)]


class Surface(NamedTuple):
    """What every pixel of a drawing shows: triangle or -1, (H, W), and barycentric weights, (H, W, 3)."""

    face: np.ndarray
    barycentric: np.ndarray

    def interpolate(self, values: Float[np.ndarray, "V C"], faces: Int[np.ndarray, "F 3"]) -> np.ndarray:
        """Values of the vertices at every pixel, (H, W, C), zero where nothing is shown."""
        shown = self.face >= 0
        result = np.zeros((*self.face.shape, np.shape(values)[1]), np.float32)
        corners = np.asarray(faces)[self.face[shown]]
        weights = self.barycentric[shown]
        result[shown] = sum(weights[:, k, None] * values[corners[:, k]] for k in range(3))
        return result


@functools.partial(jax.jit, static_argnames=("size",))
def _rasterize(vertices, faces, matrix, size):
    fragments = rasterize(clip_coordinates(vertices, matrix, size), faces, size)
    return fragments.face_index[..., 0], fragments.barycentric[..., 0, :]


@functools.partial(jax.jit, static_argnames=("size",))
def _unwrap(uv, faces, size):
    fragments = unwrap(uv, faces, size)
    return fragments.face_index[..., 0], fragments.barycentric[..., 0, :]


def draw(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    matrix: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> Surface:
    """The visible surface of a mesh in the camera frame. Compiled once for each `size` and mesh."""
    shown = _rasterize(np.asarray(vertices, np.float32), faces, np.asarray(matrix, np.float32), size)
    return Surface(*(np.asarray(part) for part in shown))


@jax.jit
def _irradiance(normals, lighting):
    return irradiance(normals, lighting)


def light_on(
    normals: Float[np.ndarray, "V 3"], lighting: Float[np.ndarray, "9 3"]
) -> Float[np.ndarray, "V 3"]:
    """Light that a white surface would reflect at every vertex, linear RGB."""
    return np.asarray(_irradiance(np.asarray(normals, np.float32), np.asarray(lighting, np.float32)))


def draw_atlas(uv: Float[np.ndarray, "T 2"], uv_faces: Int[np.ndarray, "F 3"], size: int) -> Surface:
    """The surface that every texel of a square texture shows; row 0 is v = 1, as pictures are stored."""
    return Surface(
        *(np.asarray(part) for part in _unwrap(np.asarray(uv, np.float32), uv_faces, (size, size)))
    )


def project(points: Float[np.ndarray, "... 3"], matrix: Float[np.ndarray, "3 3"]) -> np.ndarray:
    """Camera frame to pixels, on the host, (..., 2); points nearer than 1 mm are treated as 1 mm away."""
    x, y, z = np.moveaxis(np.asarray(points, np.float32), -1, 0)
    rows = [row[0] * x + row[1] * y + row[2] * z for row in np.asarray(matrix, np.float32)]
    return np.stack(rows[:2], -1) / np.maximum(rows[2], 1.0)[..., None]


class SquareCrop(NamedTuple):
    """A square window of a photograph: upper left corner and side, pixels, and the side it is drawn with."""

    corner: np.ndarray
    side: float
    size: int

    def matrix(self) -> np.ndarray:
        """Photograph pixels to window pixels, (3, 3)."""
        scale = self.size / self.side
        return np.array(
            [[scale, 0, -scale * self.corner[0]], [0, scale, -scale * self.corner[1]], [0, 0, 1]], np.float32
        )

    def cut(self, pixels: np.ndarray, outside: int | None = None) -> np.ndarray:
        """The window out of a picture (H, W, C), smoothed first where it shrinks.

        Outside the picture its edge goes on, or every channel is `outside`.
        """
        import cv2

        first = np.floor(self.corner).astype(int) - 2
        last = np.ceil(self.corner + self.side).astype(int) + 2
        height, width = pixels.shape[:2]
        x0, y0 = np.clip(first, 0, [width - 1, height - 1])
        x1, y1 = np.clip(last, [x0 + 1, y0 + 1], [width, height])
        part, corner = pixels[y0:y1, x0:x1], self.corner - [x0, y0]
        scale = self.size / self.side
        if scale < 1:
            small = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
            stretch = np.array([small[0] / part.shape[1], small[1] / part.shape[0]])
            part, corner = cv2.resize(part, small, interpolation=cv2.INTER_AREA), corner * stretch
        else:
            stretch = np.ones(2)
        step = stretch / scale
        warp = np.array(
            [[step[0], 0, corner[0] + 0.5 * step[0] - 0.5], [0, step[1], corner[1] + 0.5 * step[1] - 0.5]]
        )
        return cv2.warpAffine(
            part,
            warp,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT,
            borderValue=(outside or 0,) * 4,
        )


def head_crop(view: PosedView, focus: np.ndarray, size: int, margin: float = 0.15) -> SquareCrop:
    """The square around the projected vertices `focus` (boolean, (V,)), and `margin` of its side around."""
    points = project(view.vertices[focus], view.matrix)
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()) * (1 + 2 * margin), 4.0)
    return SquareCrop((low + high) / 2 - side / 2, side, size)
