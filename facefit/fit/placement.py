"""The fitted surface in front of a photograph's camera, and which of its triangles each pixel shows."""

from __future__ import annotations

import jax.numpy as jnp
from facefit_kernels import rasterize
from flax import struct
from jaxtyping import Array, Float, Int

from facefit import cache
from facefit.fit.observation import Observation
from facefit.fit.settings import Settings
from facefit.fit.state import Shared, View, camera
from facefit.fit.surface import FittingSurface, PointBasis
from facefit.render.camera import clip_coordinates, directions_to_camera, intrinsics, to_camera
from facefit.render.mesh import vertex_normals


@struct.dataclass
class Placed:
    """The surface's vertices as one camera has them.

    Attributes:
        vertices: camera frame, millimetres, (V, 3).
        normals: unit vectors, camera frame, (V, 3).
        matrix: intrinsics of the crop, (3, 3).
    """

    vertices: Float[Array, "V 3"]
    normals: Float[Array, "V 3"]
    matrix: Float[Array, "3 3"]


@struct.dataclass
class Drawn:
    """What every pixel of the crop shows: a triangle, -1 for none, and where in it the pixel's centre is."""

    face: Int[Array, "S S"]
    barycentric: Float[Array, "S S 3"]


def points_of(basis: PointBasis, shared: Shared, view: View) -> Float[Array, "n 3"]:
    """Model-frame positions, millimetres."""
    return basis.mean + basis.basis @ jnp.concatenate([shared.identity, view.expression])


@cache.remembered
def place(fitting: FittingSurface, shared: Shared, view: View, seen: Observation) -> Placed:
    """The surface of one photograph in front of its camera."""
    focal, translation = camera(shared.log_focal[seen.focal_group], view.pose, seen)
    points = points_of(fitting.points, shared, view)
    return Placed(
        vertices=to_camera(points, view.pose.rotation, translation),
        normals=directions_to_camera(vertex_normals(points, fitting.surface.faces), view.pose.rotation),
        matrix=intrinsics(focal, seen.principal),
    )


@cache.remembered
def draw(fitting: FittingSurface, settings: Settings, placed: Placed) -> Drawn:
    """Which triangle each pixel of the crop shows."""
    size = (settings.crop_px, settings.crop_px)
    fragments = rasterize(clip_coordinates(placed.vertices, placed.matrix, size), fitting.surface.faces, size)
    return Drawn(fragments.face_index[:, :, 0], fragments.barycentric[:, :, 0])
