"""The parts of a model that training and prediction look at, gathered once a model on the host."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from facefit.encoder.coefficients import EXPRESSION_SIGMA, Start
from facefit.encoder.mirroring import mirror_matrices
from facefit.energy import regions
from facefit.energy.geometry import color_metric, shape_metric
from facefit.metrics import NOW_POINTS, now_crop
from facefit.model import FaceModel, at_points, crop, surface_points
from facefit.photo.face_crop import CROP_FOCAL, FACE_SHARE


@struct.dataclass
class EncoderSurface:
    """A model as the encoder's losses see it.

    Attributes:
        surface: the drawn vertices and triangles, without the mouth's inside and hidden shells.
        landmarks: the model at its 68 iBUG points.
        photometric: how much a vertex's colour counts, (V,).
        skin: 1 for the vertices whose albedo should be even, (V,).
        frontal: vertices of the uncut model in the frontal face, on which geometry is measured, (N,).
        identity_metric: mean squared error of the aligned frontal face without expression, mm^2, (I, I).
        geometry_metric: the same with expression, identity before expression, (I + E, I + E).
        albedo_metric: mean squared albedo error of the skin, linear RGB, (A, A).
        start: what an output of zero means.
        mirror: coefficients of identity, expression and albedo to those of the mirrored face (see
            `mirror_matrices`); None where the model has no mirrored faces.
    """

    surface: FaceModel
    landmarks: FaceModel
    photometric: Float[Array, " V"]
    skin: Float[Array, " V"]
    frontal: Int[Array, " N"]
    identity_metric: Float[Array, "I I"]
    geometry_metric: Float[Array, "C C"]
    albedo_metric: Float[Array, "A A"]
    start: Start
    mirror: dict[str, Float[Array, "C C"]] | None = None


def frontal_vertices(model: FaceModel) -> Int[np.ndarray, " N"]:
    """Vertices of the face proper within the ball about its middle that NoW compares (`now_crop`)."""
    marks = np.asarray(surface_points(model.mean, model.faces, model.landmarks68))
    inside = now_crop(np.asarray(model.mean), marks[list(NOW_POINTS)])
    return np.flatnonzero(inside & regions.face(model)).astype(np.int32)


def upright_translation(landmarks: Float[np.ndarray, "68 3"]) -> Float[np.ndarray, "3"]:
    """Where the model's origin is when a face fills the crop as `facefit.photo.face_crop` cuts it: the box of
    its points in the middle and as large as there, millimetres.

    Args:
        landmarks: of the mean face, model frame.
    """
    points = np.asarray(landmarks, np.float64) * [1.0, -1.0, -1.0]
    translation = np.array([0.0, 0.0, 1000.0])
    for _ in range(50):
        placed = points + translation
        seen = CROP_FOCAL * placed[:, :2] / placed[:, 2:]  # in sides of the crop, from its middle
        low, high = seen.min(0), seen.max(0)
        translation[:2] -= (low + high) / 2 * translation[2] / CROP_FOCAL
        translation[2] *= (high - low).max() / FACE_SHARE
    return translation.astype(np.float32)


def encoder_surface(model: FaceModel) -> EncoderSurface:
    """Selects what the encoder's losses need of a model."""
    part = crop(model, regions.visible(model))
    frontal = frontal_vertices(model)
    marks = at_points(model, model.landmarks68)  # on the uncut model: some lie inside the mouth
    mean, identity, expression = (
        np.asarray(values)[..., frontal, :]
        for values in (model.mean, model.identity_basis, model.expression_basis)
    )
    skin = (regions.photometric_weight(part) > 0.5) & (regions.region(part, "lips") < 0.5)
    skin &= regions.region(part, "brows") < 0.5
    mirror = mirror_matrices(model)
    ambient = jnp.zeros((9, 3), jnp.float32).at[0].set(1.0)
    scale = EXPRESSION_SIGMA if model.expression_is_blendshape else 1.0

    def array(values):
        return jnp.asarray(values, jnp.float32)

    return EncoderSurface(
        surface=part,
        landmarks=marks,
        photometric=array(regions.photometric_weight(part)),
        skin=array(skin),
        frontal=jnp.asarray(frontal),
        identity_metric=array(shape_metric(identity, mean)),
        geometry_metric=array(shape_metric(np.concatenate([identity, expression]), mean)),
        albedo_metric=array(color_metric(np.asarray(part.albedo_basis), skin)),
        mirror=None if mirror is None else {name: array(matrix) for name, matrix in mirror.items()},
        start=Start(array(upright_translation(np.asarray(marks.mean))), ambient, array(scale)),
    )
