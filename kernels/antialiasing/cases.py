"""Coloured scenes whose motion has a known effect on the picture, for the tests and benchmarks of
antialiasing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from facefit_kernels.antialiasing.op import antialias
from facefit_kernels.implementations import Implementation
from facefit_kernels.interpolation.op import interpolate
from facefit_kernels.rasterization.cases import ball, project
from facefit_kernels.rasterization.op import rasterize

BACKGROUND = np.array([0.1, 0.5, 0.3], np.float32)


class Scene(NamedTuple):
    """A mesh in front of the camera: vertices (V, 3), colors (V, 3), faces (F, 3)."""

    vertices: np.ndarray
    colors: np.ndarray
    faces: np.ndarray


def colored_ball(rings: int, bumps: float, seed: int = 0) -> Scene:
    """A ball turned at random, with smooth colours; with bumps it hides parts of itself."""
    rng = np.random.default_rng(seed)
    vertices, faces = ball(rings, rings, bumps)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    vertices = (vertices @ turn.T).astype(np.float32)
    colors = 0.5 + 0.4 * np.sin(1.5 * vertices @ rng.normal(size=(3, 3)) + 1)
    return Scene(vertices, colors.astype(np.float32), faces)


def picture(
    vertices,
    scene: Scene,
    size: tuple[int, int],
    implementation: Implementation = None,
    antialiased: bool = True,
):
    """The scene's (H, W, 3) picture with its vertices moved to `vertices` (V, 3), over a flat background."""
    clip = project(vertices, zoom=3.2, numpy=jnp)
    fragments = rasterize(clip, scene.faces, size, implementation=implementation)
    colors = interpolate(scene.colors, scene.faces, fragments, implementation)[:, :, 0]
    image = jnp.where(fragments.face_index >= 0, colors, BACKGROUND)
    if not antialiased:
        return image
    return antialias(image, clip, scene.faces, fragments, implementation)


def supersampled(
    vertices, scene: Scene, size: tuple[int, int], times: int, implementation: Implementation = None
):
    """The same picture as the mean of `times` x `times` hard samples a pixel: what antialiasing is for."""
    height, width = size
    fine = picture(vertices, scene, (height * times, width * times), implementation, antialiased=False)
    return fine.reshape(height, times, width, times, 3).mean((1, 3))
