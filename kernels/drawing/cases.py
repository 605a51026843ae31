"""Named sizes and small scenes for the tests and benchmarks of drawing."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.drawing.op import draw
from facefit_kernels.implementations import Implementation
from facefit_kernels.interpolation.op import interpolate
from facefit_kernels.rasterization.cases import SIZES, Case, ball_case, project
from facefit_kernels.rasterization.op import rasterize


def colors(case: Case, seed: int = 0) -> np.ndarray:
    """(V, 3) float32 values that vary smoothly over the mesh."""
    direction = np.random.default_rng(seed).normal(size=(3, 3))
    return (0.5 + 0.4 * np.sin(case.vertices_clip[:, :3] @ direction + 1)).astype(np.float32)


def named(name: str) -> Case:
    """The case of that name; see `rasterization.cases.SIZES`."""
    return ball_case(*SIZES[name])


class Sheets(NamedTuple):
    """A few triangles before a camera with `SHEETS_MATRIX`: vertices (V, 3), colors (V, 3), faces (F, 3)."""

    vertices: np.ndarray
    colors: np.ndarray
    faces: np.ndarray


SHEETS_SIZE = (48, 64)
SHEETS_MATRIX = np.array([[28.8, 0, 32], [0, 28.8, 24], [0, 0, 1]], np.float32)
_NEAR, _FAR, _FINE = 0.5, 60.0, 16
_QUAD = np.array([[0, 1, 2], [0, 2, 3]])


def _fan(width: float) -> tuple[np.ndarray, np.ndarray]:
    """Thirty triangles apart from each other, `width` pixels wide at one end and pointed at the other."""
    x = np.linspace(-1, 1, 30)
    first = np.stack([2 * x, np.full(30, -1.6), np.full(30, 4.0)], -1)
    last = np.stack([3 * x + 0.2, 1.6 + 0.2 * np.sin(9 * x), np.full(30, 4.5)], -1)
    second = first + [width * 4.0 / SHEETS_MATRIX[0, 0], 0, 0]
    return np.stack([first, second, last], 1).reshape(-1, 3), np.arange(90).reshape(-1, 3)


def sheets(name: str) -> Sheets:
    """One of SHEETS."""
    vertices, faces = {
        "one triangle": lambda: (np.array([[-0.8, -0.7, 3], [1.1, -0.2, 3.4], [-0.1, 0.9, 2.8]]), _QUAD[:1]),
        "slivers": lambda: _fan(2.0),
        "across the border": lambda: (
            np.array(
                [[-3, -2.2, 3], [3.5, -1, 3], [0.4, 3, 3], [-0.5, -0.5, 2.5], [3, 0.2, 2.5], [0.2, 2.5, 2.7]]
            ),
            np.arange(6).reshape(2, 3),
        ),
        "through the camera's plane": lambda: (
            np.array([[-1, 0.6, -2], [1.2, 0.6, -2], [1.5, 0.6, 30], [-1.3, 0.6, 30]]), _QUAD,
        ),
        "one before another": lambda: (
            np.array(
                [[-2, -2, 5], [2, -2, 4.5], [2, 2, 6], [-2, 2, 5.5],
                 [-0.7, -0.8, 3], [0.9, -0.6, 3.2], [0.6, 0.9, 3.1], [-0.8, 0.7, 2.9]]
            ),
            np.concatenate([_QUAD, _QUAD + 4]),
        ),
    }[name]()  # fmt: skip
    vertices = vertices.astype(np.float32)
    direction = np.random.default_rng(0).normal(size=(3, 3))
    colors = 0.5 + 0.4 * np.sin(vertices @ direction + 1)
    return Sheets(vertices, colors.astype(np.float32), faces.astype(np.int32))


SHEETS = ("one triangle", "slivers", "across the border", "through the camera's plane", "one before another")


def _clip(vertices):
    (height, width), focal = SHEETS_SIZE, SHEETS_MATRIX[0, 0]
    clip = project(vertices, distance=0.0, zoom=2 * focal, near=_NEAR, far=_FAR, numpy=jnp)
    return clip / np.array([width, height, 1, 1], np.float32)


def sheets_weight(times: int = 1) -> np.ndarray:
    """What a picture of SHEETS_SIZE, or one `times` as fine, is multiplied with: a smooth (H, W, 3)."""
    rows, columns = ((np.arange(times * n) + 0.5) / times for n in SHEETS_SIZE)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    weight = [0.3 + np.sin(x / 9 + k) * np.cos(y / 7 - k) for k in range(3)]
    return np.stack(weight, axis=-1).astype(np.float32)


def shift_gradient(scene: Sheets, samples: int, implementation: Implementation = None) -> np.ndarray:
    """The derivative of the weighted sum of a drawing by a shift of all vertices, (3,)."""

    @jax.jit
    def gradient(vertices):
        def total(shift):
            drawn = draw(
                _clip(vertices + shift), scene.colors, scene.faces, SHEETS_SIZE, samples, implementation
            )
            return jnp.sum(sheets_weight() * drawn[0])

        return jax.grad(total)(jnp.zeros(3))

    return np.asarray(gradient(scene.vertices))


def true_shift_gradient(scene: Sheets, step: float = 0.01) -> np.ndarray:
    """The same by finite differences of the hard picture with 16 x 16 samples a pixel."""
    size = tuple(_FINE * n for n in SHEETS_SIZE)
    weight = sheets_weight(_FINE) / _FINE**2

    @jax.jit
    def total(vertices):
        clip = _clip(vertices)
        drawn = interpolate(scene.colors, scene.faces, rasterize(clip, scene.faces, size))[:, :, 0]
        return jnp.sum(weight * drawn)

    change = [
        np.float64(total(scene.vertices + unit)) - np.float64(total(scene.vertices - unit))
        for unit in step * np.eye(3, dtype=np.float32)
    ]
    return np.asarray(change) / (2 * step)
