"""The pose a fit starts from: one linear solve from landmarks, no search."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facefit.fit.observation import Observation
from facefit.fit.settings import Settings
from facefit.fit.state import Pose, Shared, View
from facefit.model import FaceModel, surface_points
from facefit.rotations import axis_angle_from_matrix

_HALF_TURN = (1.0, -1.0, -1.0)


def similarity(
    source: Float[Array, "L 3"], target: Float[Array, "L 3"]
) -> tuple[Float[Array, ""], Float[Array, "3 3"], Float[Array, "3"]]:
    """Scale, rotation and translation that take `source` nearest to `target` (Umeyama 1991)."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, s, vt = jnp.linalg.svd(b.T @ a)
    sign = jnp.ones(3).at[2].set(jnp.sign(jnp.linalg.det(u @ vt)))
    rotation = (u * sign) @ vt
    scale = jnp.sum(s * sign) / jnp.maximum(jnp.sum(a * a), 1e-12)
    return scale, rotation, target_mean - scale * rotation @ source_mean


def scaled_orthographic(
    source: Float[Array, "L 3"], target: Float[Array, "L 2"]
) -> tuple[Float[Array, ""], Float[Array, "3 3"], Float[Array, "2"]]:
    """Scale, rotation and offset of the parallel projection that takes `source` nearest to `target`.

    The affine least-squares solution, made orthogonal (DeMenthon and Davis 1995).
    """
    centre = source.mean(0)
    matrix, *_ = jnp.linalg.lstsq(source - centre, target - target.mean(0))
    rows = matrix.T
    scale = jnp.sqrt(jnp.linalg.norm(rows[0]) * jnp.linalg.norm(rows[1]))
    u, _, vt = jnp.linalg.svd(jnp.concatenate([rows, jnp.cross(rows[0], rows[1])[None] / scale]))
    rotation = u @ jnp.diag(jnp.ones(3).at[2].set(jnp.linalg.det(u @ vt))) @ vt
    return scale, rotation, target.mean(0) - scale * (rotation @ centre)[:2]


def start(
    model: FaceModel, observations: Observation, groups: int, drifts: int, settings: Settings
) -> tuple[Shared, View]:
    """The mean face, neutral, under ambient light, with the pose that its landmarks suggest.

    Args:
        observations: with leading axis N.
        groups: number of focal lengths.
        drifts: number of modes of the dense network's error.
    """
    half_turn = jnp.asarray(_HALF_TURN)
    dense = surface_points(model.mean, model.faces, model.landmarks468) * half_turn
    sparse = surface_points(model.mean, model.faces, model.landmarks68) * half_turn
    expressions = model.expression_basis.shape[0]
    paint = jnp.maximum(surface_points(model.albedo_mean, model.faces, model.landmarks468), 0.02)

    def one(observation: Observation) -> tuple[View, Float[Array, ""]]:
        scale3, rotation3, offset3 = similarity(dense, observation.points468)
        # Jaw points slide on the face; the rest stays put.
        scale2, rotation2, offset2 = scaled_orthographic(sparse[17:], observation.points68[17:])
        use_dense = observation.weight468 > 0
        scale = jnp.maximum(jnp.where(use_dense, scale3, scale2), 1e-3)
        rotation = jnp.where(use_dense, rotation3, rotation2)
        place = jnp.where(use_dense, offset3[:2], offset2)
        # What the ambient light must be for the mean albedo to look like the photograph, from the landmarks,
        # which are on the face whatever the background is. The upper quartile is skin: eyes, lips, beards
        # and shadows are darker, and starting too dark would make outliers of the skin.
        where = jnp.where(use_dense, observation.points468[:, :2], jnp.mean(observation.points68, 0))
        column, row = jnp.clip(where.astype(jnp.int32), 0, observation.image.shape[0] - 1).T
        ratio = jnp.quantile(observation.image[row, column] / paint, 0.75, axis=0)
        light = jnp.clip(ratio, 0.02, 8.0)
        ambient = jnp.zeros((9, 3)).at[0].set(0.5 * light + 0.5 * jnp.mean(light))
        view = View(
            expression=jnp.zeros((expressions,)),
            pose=Pose(rotation=axis_angle_from_matrix(rotation), place=place, log_scale=jnp.log(scale)),
            lighting=ambient,
            drift=jnp.zeros((drifts,)),
            depth_zero=offset3[2],
        )
        # Two guesses of the focal length, one from the face's distance and one from the picture's size or
        # EXIF.
        by_distance = jnp.log(scale * settings.distance_mm * observation.photo_px)
        precision_a, precision_b = settings.distance_log_sigma**-2, observation.log_focal_sigma**-2
        log_focal = (precision_a * by_distance + precision_b * observation.log_focal) / (
            precision_a + precision_b
        )
        return view, log_focal

    views, log_focal = jax.vmap(one)(observations)
    member = jax.nn.one_hot(observations.focal_group, groups, axis=0)
    count = member.sum(1)
    mean_focal = (member @ log_focal) / jnp.maximum(count, 1.0)
    shared = Shared(
        identity=jnp.zeros((model.identity_basis.shape[0],)),
        albedo=jnp.zeros((model.albedo_basis.shape[0],)),
        log_focal=jnp.where(count > 0, mean_focal, 7.0),
    )
    return shared, views
