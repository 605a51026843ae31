"""What fitted photographs show of the face model's skin: at its vertices to learn from, at pixels to measure.

Geometry, pose and visibility are held as fitted, so every photograph is drawn once and never again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels import rasterize
from jaxtyping import Array, Float, Int
from scipy.spatial import cKDTree

from facefit.encoder.dataset import Dataset, read_sample
from facefit.energy import regions
from facefit.energy.landmarks import facing
from facefit.model import FaceModel, vertices
from facefit.render import clip_coordinates, directions_to_camera, intrinsics, to_camera, vertex_normals
from facefit.render.mesh import boundary_vertices, normalize

# Brows and lips have no skin's colour, and are where a basis matters most: seen through this much of doubt.
_HAIR_AND_LIPS = 0.7
_RIM_MM = 2.0  # colours count from half of this distance on, and fully from one and a half
_LEAST = 1e-3  # of a pixel: what shows less of a vertex does not show it
MOST_PIXELS = 8192  # of a photograph that are measured
BLOCK_PX = 4  # side of the squares of the chequerboard whose halves are solved on and measured on


class Seen(NamedTuple):
    """Colours of one photograph, or with a leading axis of many, at S places of the surface.

    Attributes:
        color: sRGB in [0, 1], (S, 3).
        weight: share of a pixel that the place is, times how far it can be trusted; 0 where it is not
            seen, (S,).
        normal: unit, camera frame, (S, 3).
    """

    color: Float[Array, "S 3"]
    weight: Float[Array, " S"]
    normal: Float[Array, "S 3"]


class SeenPixels(NamedTuple):
    """Pixels of one photograph, or with a leading axis of many.

    Attributes:
        seen: as `Seen`, one place a pixel.
        corner, barycentric: where on the surface, (M, 3) each.
        half: the half of the chequerboard, 0 or 1, (M,).
    """

    seen: Seen
    corner: Int[Array, "M 3"]
    barycentric: Float[Array, "M 3"]
    half: Int[Array, " M"]


class Geometry(NamedTuple):
    """What a fit found of one photograph but its colours, as in a data set."""

    identity: Float[Array, " I"]
    expression: Float[Array, " E"]
    rotation: Float[Array, "3"]
    translation: Float[Array, "3"]
    focal: Float[Array, ""]


class Trust(NamedTuple):
    """How much colours of the vertices count, (V,), and how far hair and lips excuse a colour that is no
    skin's, (V,)."""

    photometric: Float[Array, " V"]
    excused: Float[Array, " V"]


def off_rims(model: FaceModel) -> Float[np.ndarray, " V"]:
    """0 at the rims of lids and lips, and of the mesh, 1 from 3 mm on."""
    points, eyes = np.asarray(model.mean), regions.region(model, "eyes") > 0.5
    rim = points[np.union1d(np.flatnonzero(eyes), boundary_vertices(np.asarray(model.faces)))]
    if not len(rim):
        return np.ones(len(points))
    return np.clip(cKDTree(rim).query(points)[0] / _RIM_MM - 0.5, 0.0, 1.0)


def spread_over_face(model: FaceModel) -> Int[np.ndarray, " P"]:
    """About a hundred vertices of the face: where it is asked whether an albedo is plausible."""
    face = np.flatnonzero(regions.face(model))
    return face[:: max(len(face) // 100, 1)]


def trust_of(model: FaceModel) -> Trust:
    """As in fitting (`facefit.energy.regions`), but that brows and lips need not have the colour of skin, and
    that the rims of lids and lips do not count: a fit that misses by a millimetre has eyeballs and teeth
    there.
    """
    weight = regions.photometric_weight(model) * off_rims(model)
    brows, lips = regions.region(model, "brows"), regions.region(model, "lips")
    excused = _HAIR_AND_LIPS * np.clip(2.0 * np.maximum(brows, lips), 0.0, 1.0)
    return Trust(jnp.asarray(weight, jnp.float32), jnp.asarray(excused, jnp.float32))


@jax.jit
def _surface(model: FaceModel, trust: Trust, image, skin, geometry: Geometry):
    """Triangle corners, barycentric weights, pixel weights and vertex normals (camera frame)."""
    size = image.shape[0]
    points = vertices(model, geometry.identity, geometry.expression)
    placed = to_camera(points, geometry.rotation, geometry.translation)
    normals = directions_to_camera(vertex_normals(points, model.faces), geometry.rotation)
    middle = jnp.full((2,), size / 2.0, jnp.float32)
    clip = clip_coordinates(placed, intrinsics(geometry.focal, middle), (size, size))
    drawn = rasterize(clip, model.faces, (size, size))
    face, barycentric = drawn.face_index[..., 0], drawn.barycentric[..., 0, :]
    corner = model.faces[jnp.maximum(face, 0)]
    usable = trust.photometric * jnp.clip(2.5 * facing(placed, normals), 0.0, 1.0)
    each = jnp.stack([usable, trust.excused], -1)[corner]
    usable, excused = jnp.moveaxis(jnp.einsum("hwk,hwkc->hwc", barycentric, each), -1, 0)
    weight = jnp.where(face >= 0, usable * jnp.maximum(skin, excused), 0.0)
    return corner, barycentric, weight, normals


@jax.jit
def seen_vertices(model: FaceModel, trust: Trust, image, skin, geometry: Geometry) -> Seen:
    """The colours of one photograph shared out to the vertices about each pixel, (V, ...).

    Args:
        image: sRGB in [0, 1], (S, S, 3). skin: in [0, 1], (S, S).
    """
    corner, barycentric, weight, normals = _surface(model, trust, image, skin, geometry)
    share = (weight[..., None] * barycentric).reshape(-1)
    colors = jnp.repeat(image.reshape(-1, 3), 3, axis=0)
    total = jax.ops.segment_sum(
        jnp.concatenate([share[:, None], share[:, None] * colors], 1), corner.reshape(-1), len(model.mean)
    )
    weight = jnp.where(total[:, 0] > _LEAST, total[:, 0], 0.0)
    return Seen(total[:, 1:] / jnp.maximum(weight, 1e-6)[:, None], weight, normals)


@jax.jit
def seen_pixels(model: FaceModel, trust: Trust, image, skin, geometry: Geometry) -> SeenPixels:
    """The pixels of one photograph that show the face, `MOST_PIXELS` at most; the rest weigh nothing."""
    corner, barycentric, weight, normals = _surface(model, trust, image, skin, geometry)
    row, column = jnp.indices(weight.shape)
    half = (row // BLOCK_PX + column // BLOCK_PX) % 2
    chosen, index = jax.lax.top_k(weight.ravel(), MOST_PIXELS)
    corner, barycentric = corner.reshape(-1, 3)[index], barycentric.reshape(-1, 3)[index]
    normal = normalize(jnp.einsum("mk,mkc->mc", barycentric, normals[corner]))
    seen = Seen(image.reshape(-1, 3)[index], chosen, normal)
    return SeenPixels(seen, corner, barycentric, half.ravel()[index].astype(jnp.int32))


def read_seen(
    data: Dataset, indices: Iterable[int], model: FaceModel, pixels: bool = False
) -> Seen | SeenPixels:
    """What the photographs of a data set show, stacked, on the host: at the vertices of `model`, or at
    pixels.

    Args:
        model: the part that is seen (`facefit.energy.regions.visible`).

    Raises:
        InputError: a picture is missing or damaged.
    """
    trust, look = trust_of(model), seen_pixels if pixels else seen_vertices
    found = []
    for index in indices:
        image, skin = read_sample(data.folder, int(index))
        geometry = Geometry(*(jnp.asarray(data.truth[name][index], jnp.float32) for name in Geometry._fields))
        image, skin = np.float32(image) / 255.0, np.float32(skin) / 255.0
        found.append(jax.tree.map(np.asarray, look(model, trust, image, skin, geometry)))
    return jax.tree.map(lambda *rows: np.stack(rows), *found)
