"""Where known faces have the surface points that the detector's dense ones stand for: in pictures, and of
random faces without a picture.
"""

from __future__ import annotations

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from facefit.encoder.augmentation import TRAINING, Augmentation
from facefit.encoder.mirroring import mirror_matrices
from facefit.model import FaceModel, at_points
from facefit.photo.face_crop import CROP_FOCAL, FACE_SHARE, NETWORK_SHARE
from facefit.rotations import matrix_from_axis_angle
from facefit.synthesis.expressions import random_distance, random_expression, random_rotation

_POSES = 20_000  # expressions and poses that random faces are drawn with


@dataclasses.dataclass(frozen=True, eq=False)
class SurfaceModel:
    """A model at its dense points, on the host: what it takes to say where a known face has them.

    Attributes:
        mean: (468, 3), millimetres. identity, expression: (I, 468, 3), (E, 468, 3).
        counts: of identity, expression and albedo coefficients of the whole model.
        mirror: see `mirror_matrices`; None where the model has no mirrored faces.
    """

    mean: Float[np.ndarray, "468 3"]
    identity: Float[np.ndarray, "I 468 3"]
    expression: Float[np.ndarray, "E 468 3"]
    counts: tuple[int, int, int]
    mirror: dict[str, Float[np.ndarray, "C C"]] | None = None


def surface_model(model: FaceModel) -> SurfaceModel:
    """The model at `landmarks468`."""
    part = at_points(model, model.landmarks468)
    counts = tuple(len(basis) for basis in (model.identity_basis, model.expression_basis, model.albedo_basis))
    arrays = (np.asarray(a) for a in (part.mean, part.identity_basis, part.expression_basis))
    return SurfaceModel(*arrays, counts, mirror_matrices(model))


def true_points(model: SurfaceModel, truth: dict[str, np.ndarray], size: int) -> Float[np.ndarray, "468 2"]:
    """The surface points of a labelled sample in the pixels of its stored crop.

    Args:
        truth: the sample's, see `facefit.encoder.dataset.TRUTH`; its depth is that in the encoder's camera.
        size: side of the stored crop, pixels.
    """
    points = model.mean + np.tensordot(truth["identity"], model.identity, 1)
    points = points + np.tensordot(truth["expression"], model.expression, 1)
    focal = float(truth["focal"])
    turn = cv2.Rodrigues(truth["rotation"].astype(float))[0]
    farther = focal / (CROP_FOCAL * NETWORK_SHARE * size)
    placed = (points * [1, -1, -1]) @ turn.T + truth["translation"] * [1, 1, farther]
    return (placed[:, :2] * focal / np.maximum(placed[:, 2:], 1.0) + size / 2).astype(np.float32)


@struct.dataclass
class RandomFaces:
    """What random faces are made of: the model at its dense and iBUG points, and N expressions and poses as
    synthetic photographs have them.

    Attributes:
        dense, marks: the model there. expression: (N, E). turn: rotation matrices, camera frame, (N, 3, 3).
        distance: camera to face, millimetres, (N,).
    """

    dense: FaceModel
    marks: FaceModel
    expression: Float[Array, "N E"]
    turn: Float[Array, "N 3 3"]
    distance: Float[Array, " N"]


def random_faces(model: FaceModel, seed: int) -> RandomFaces:
    """Draws the expressions and poses. A pure function of the seed."""
    rng = np.random.default_rng([seed, 468])
    names, count = model.expression_names, model.expression_basis.shape[0]
    kind = model.expression_is_blendshape
    rows = [
        (random_expression(rng, names, count, kind), random_rotation(rng), random_distance(rng))
        for _ in range(_POSES)
    ]
    expression, rotation, distance = (jnp.asarray(np.stack(column), jnp.float32) for column in zip(*rows))
    return RandomFaces(
        at_points(model, model.landmarks468),
        at_points(model, model.landmarks68),
        expression,
        jax.vmap(matrix_from_axis_angle)(rotation),
        distance,
    )


def draw_random_faces(
    faces: RandomFaces, key: Array, count: int, size: int, amount: Augmentation = TRAINING
) -> tuple[Float[Array, "B I"], Float[Array, "B E"], Float[Array, "B 468 2"]]:
    """Identity (normally distributed), expression, and dense points in the pixels of a training crop.

    There is no picture, hence no end of them: how a face's shape and its points in a picture hang together is
    learned from these, and how points are found from photographs.
    """
    keys = jax.random.split(key, 5)
    rows = jax.random.randint(keys[0], (count,), 0, len(faces.expression))
    identity = jax.random.normal(keys[1], (count, faces.dense.identity_basis.shape[0]))
    expression = faces.expression[rows]
    half_turn = jnp.asarray([1.0, -1.0, -1.0])

    def turned(part: FaceModel) -> Float[Array, "B L 3"]:
        points = part.mean + jnp.tensordot(identity, part.identity_basis, 1)
        points = points + jnp.tensordot(expression, part.expression_basis, 1)
        return jnp.einsum("bij,blj->bli", faces.turn[rows], points * half_turn)

    dense, marks = turned(faces.dense), turned(faces.marks)
    middle = marks.mean(1, keepdims=True)
    away = faces.distance[rows, None, None] * jnp.asarray([0.0, 0.0, 1.0])
    dense, marks = (points - middle + away for points in (dense, marks))
    dense, marks = (points[..., :2] / points[..., 2:] for points in (dense, marks))
    low, high = marks.min(1, keepdims=True), marks.max(1, keepdims=True)
    side = (high - low).max(-1, keepdims=True) / FACE_SHARE
    placed = (dense - 0.5 * (low + high)) / side  # in sides of the crop, from its middle
    zoom = 1.0 + amount.scale * jax.random.uniform(keys[2], (count, 1, 1), minval=-1.0)
    angle = amount.rotation * jax.random.uniform(keys[3], (count,), minval=-1.0)
    shift = amount.shift * jax.random.uniform(keys[4], (count, 1, 2), minval=-1.0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    plane = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
    moved = jnp.einsum("bij,blj->bli", plane, placed * zoom) + shift + 0.5
    return identity, expression, size * moved
