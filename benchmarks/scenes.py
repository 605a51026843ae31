"""Heads in front of a camera, as the benchmarks draw them: model, pose, light, and a picture that they
fill.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from facefit_kernels import interpolate, rasterize
from jaxtyping import Array, Float

from facefit.model import FaceModel, albedo, crop, find_model, mean_parameters, vertices
from facefit.model.ict import HEAD
from facefit.render import (
    clip_coordinates,
    directions_to_camera,
    intrinsics,
    render,
    shade,
    to_camera,
    vertex_normals,
)

ICT_FILE = Path(__file__).resolve().parents[2] / "shared/data/models/ict_facekit/ict_facekit_float32.npz"
_LIGHT = np.random.default_rng(0).normal(0, 0.15, (9, 3)).astype(np.float32)
_LIGHT[0] = 0.9
BACKGROUND = np.float32([0.1, 0.5, 0.3])
# What `moved` does to a scene, in this order: millimetres, radians, a factor, coefficients.
MOTIONS = ("x", "y", "z", "pitch", "yaw", "roll", "scale", "expression 0", "expression 1", "expression 2")


class Scene(NamedTuple):
    """A head: its model, how it is turned and how it looks, and three expression units that can be moved."""

    name: str
    model: FaceModel
    rotation: tuple[float, float, float]
    expression: dict[int, float]
    units: tuple[int, int, int]


def outer(model: FaceModel) -> FaceModel:
    """The model without what is never seen from outside."""
    hidden = [np.asarray(model.regions[name]) for name in ("inner", "hidden") if name in model.regions]
    return crop(model, np.max(hidden, axis=0) < 0.5)


def head_scenes() -> list[Scene]:
    """Three heads: the open model from the front; half from the side with an open mouth, so that nose, lips
    and ears hide what is behind them; and ICT-FaceKit where its files are there, else the open model from
    below.

    All mouths are a little open: between closed lips nothing is seen, and the picture has no derivative by
    opening them.
    """
    model = find_model("open")

    def units(model, *names):
        return tuple(model.expression_names.index(name) for name in names)

    jaw = units(model, "jawOpen", "mouthSmileLeft", "browInnerUp")
    scenes = [
        Scene("open front", model, (0.05, 0.1, 0.02), {jaw[0]: 0.3}, jaw),
        Scene("open profile", model, (0.1, 0.95, -0.1), {jaw[0]: 0.7, jaw[1]: 0.5}, jaw),
    ]
    if ICT_FILE.is_file():
        model = ict_head()
        jaw = units(model, "jawOpen", "mouthSmileLeft", "browInnerUpLeft")
        return [*scenes, Scene("ict", model, (-0.1, 0.4, 0.1), {jaw[0]: 0.3}, jaw)]
    return [*scenes, Scene("open below", outer(model), (-0.4, -0.5, 0.1), {jaw[0]: 0.3}, jaw)]


def ict_head() -> FaceModel:
    """Face, head and neck of ICT-FaceKit: 22 thousand triangles."""
    model = find_model(ICT_FILE)
    return crop(model, np.arange(model.mean.shape[0]) < HEAD.stop)


def camera(size: tuple[int, int]) -> Float[Array, "3 3"]:
    """A pinhole camera that a head 600 mm away fills."""
    height, width = size
    return intrinsics(2.05 * min(size), jnp.float32([0.5 * width, 0.5 * height]))


def moved(scene: Scene, motion: Float[Array, "10"]):
    """Vertices in the camera frame and shaded colours of a scene, moved as MOTIONS says."""
    parameters = mean_parameters(scene.model, 1)
    expression = jnp.zeros(scene.model.expression_basis.shape[0])
    for unit, weight in scene.expression.items():
        expression = expression.at[unit].set(weight)
    expression = expression.at[jnp.asarray(scene.units)].add(motion[7:])
    points = vertices(scene.model, parameters.identity, expression)
    rotation = jnp.asarray(scene.rotation, jnp.float32) + motion[3:6]
    normals = directions_to_camera(vertex_normals(points, scene.model.faces), rotation)
    colors = shade(albedo(scene.model, parameters.albedo), normals, jnp.asarray(_LIGHT))
    middle = 0.5 * (scene.model.mean.min(0) + scene.model.mean.max(0))
    placed = to_camera((1 + motion[6]) * (points - middle), rotation, jnp.float32([0, 0, 600]))
    return placed + motion[:3], colors


def picture(scene: Scene, motion: Float[Array, "10"], size: tuple[int, int], samples: int = 1):
    """The antialiased picture (H, W, 3) over a flat background."""
    placed, colors = moved(scene, motion)
    drawn = render(placed, colors, scene.model.faces, camera(size), size, samples=samples)
    return drawn.image + (1 - drawn.coverage[..., None]) * BACKGROUND


def supersampled(scene: Scene, motion: Float[Array, "10"], size: tuple[int, int], times: int):
    """The mean of `times` x `times` hard samples a pixel: what antialiasing approximates."""
    height, width = size
    fine = (times * height, times * width)
    placed, colors = moved(scene, motion)
    clip = clip_coordinates(placed, camera(size), size)
    fragments = rasterize(clip, scene.model.faces, fine)
    drawn = interpolate(colors, scene.model.faces, fragments)[:, :, 0]
    drawn = jnp.where(fragments.face_index >= 0, drawn, BACKGROUND)
    return drawn.reshape(height, times, width, times, 3).mean((1, 3))
