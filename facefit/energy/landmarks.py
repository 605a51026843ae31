"""Landmark terms: projected points of the model against points found in the photograph."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from facefit.energy.robust import geman_mcclure

# Deng et al. 2019 measure landmarks in crops of so many pixels, and count the bridge and tip of the nose and
# the inner mouth (0-based 28-30, 60-67) twenty times.
_LOSS_PX = 224.0
_STRESSED = tuple(range(28, 31)) + tuple(range(60, 68))
_STRESS = 20.0


@struct.dataclass
class Outline:
    """Which vertex stands for each outline landmark during one solver step.

    Attributes:
        vertex: index into the candidates, (L,).
        normal: unit outward direction of the outline in the picture, (L, 2): only the distance along it
            counts, since nothing tells where along a smooth outline a landmark sits.
        weight: 1 where the landmark lies on the visible outline, 0 where its own surface point faces the
            camera, (L,).
    """

    vertex: Int[Array, " L"]
    normal: Float[Array, "L 2"]
    weight: Float[Array, " L"]


@struct.dataclass
class LandmarkEvidence:
    """L landmarks found in a photograph and how much each tells.

    Attributes:
        observed: pixels, (L, 2).
        whitening: takes a difference in pixels to standard deviations, (L, 2, 2). A rank-one matrix says that
            only the distance in one direction is known.
        weight: share of an independent measurement, (L,); 0 leaves the landmark out.
    """

    observed: Float[Array, "L 2"]
    whitening: Float[Array, "L 2 2"]
    weight: Float[Array, " L"]


def landmark_residuals(
    projected: Float[Array, "L 2"], evidence: LandmarkEvidence, outlier: float
) -> Float[Array, "L 2"]:
    """Robust differences in standard deviations.

    Args:
        projected: the model's points, pixels.
        outlier: scale of the Geman-McClure penalty, standard deviations.
    """
    difference = jnp.einsum("lij,lj->li", evidence.whitening, projected - evidence.observed)
    return jnp.sqrt(evidence.weight)[:, None] * geman_mcclure(difference, outlier)


def facing(points: Float[Array, "L 3"], normals: Float[Array, "L 3"]) -> Float[Array, " L"]:
    """Cosine between surface normal and direction to the camera, camera frame: 1 looks at it, 0 outline."""
    return -jnp.sum(points * normals, -1) / jnp.maximum(jnp.linalg.norm(points, axis=-1), 1e-6)


def match_outline(
    candidates: Float[Array, "C 3"],
    normals: Float[Array, "C 3"],
    projected: Float[Array, "C 2"],
    observed: Float[Array, "L 2"],
    own_facing: Float[Array, " L"],
    unit: Float[Array, ""],
) -> Outline:
    """Finds the vertex of the visible outline nearest to every outline landmark.

    The jaw points of the 2D schemes slide along the cheek with the pose (Zhu et al. 2015): a fixed vertex
    would pull the pose. The candidate that is both edge-on and near the landmark is taken.

    Args:
        candidates, normals: vertices of the face's sides and their normals, camera frame.
        projected: the candidates in pixels.
        observed: outline landmarks in pixels.
        own_facing: `facing` of the landmarks' own surface points.
        unit: the size of the face, pixels.
    """
    cosine = facing(candidates, normals)
    distance = jnp.linalg.norm(observed[:, None] - projected[None], axis=-1) / unit
    vertex = jnp.argmin(distance**2 + (0.7 * cosine[None]) ** 2, axis=1)
    normal = normals[vertex, :2]
    normal = normal / jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    weight = jnp.clip((0.45 - own_facing) / 0.2, 0.0, 1.0)
    return Outline(vertex, normal, weight)


def landmark_loss(
    projected: Float[Array, "*batch 68 2"],
    observed: Float[Array, "*batch 68 2"],
    weight: Float[Array, "*batch 68"],
    size: int,
) -> Float[Array, ""]:
    """Mean squared distance of the iBUG points (Deng et al. 2019), with nose and inner mouth stressed.

    Args:
        projected, observed: crop pixels.
        weight: in [0, 1]; 0 where a point is not known. The mean is over all points, known or not.
        size: side of the crop, pixels; distances are counted as in a crop of 224.
    """
    stress = jnp.ones((68,)).at[jnp.asarray(_STRESSED)].set(_STRESS)
    squared = jnp.sum((projected - observed) ** 2, -1) * (_LOSS_PX / size) ** 2
    return jnp.mean(stress * weight * squared)
