"""Landmark terms: projected points of the model against points found in the photograph."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from facefit.energy.robust import geman_mcclure


@struct.dataclass
class Outline:
    """Which vertex stands for each outline landmark during one solver step.

    Attributes:
        vertex: index into the candidates, (L,).
        normal: unit outward direction of the outline in the picture, (L, 2): only the distance along it counts, since
            nothing tells where along a smooth outline a landmark sits.
        weight: 1 where the landmark lies on the visible outline, 0 where its own surface point faces the camera, (L,).
    """

    vertex: Int[Array, " L"]
    normal: Float[Array, "L 2"]
    weight: Float[Array, " L"]


def landmark_residuals(
    projected: Float[Array, "L D"],
    observed: Float[Array, "L D"],
    sigma: Float[Array, " L"],
    weight: Float[Array, " L"],
    outlier: float,
) -> Float[Array, "L D"]:
    """Robust differences in standard deviations.

    Args:
        projected, observed: pixels.
        sigma: standard deviation of each landmark, pixels.
        weight: 0 leaves a landmark out.
        outlier: scale of the Geman-McClure penalty, standard deviations.
    """
    difference = (projected - observed) / sigma[:, None]
    return jnp.sqrt(weight)[:, None] * geman_mcclure(difference, outlier)


def facing(points: Float[Array, "L 3"], normals: Float[Array, "L 3"]) -> Float[Array, " L"]:
    """Cosine between the surface normal and the direction to the camera, camera frame: 1 looks at it, 0 outline."""
    return -jnp.sum(points * normals, -1) / jnp.maximum(jnp.linalg.norm(points, axis=-1), 1e-6)


def match_outline(
    candidates: Float[Array, "C 3"],
    normals: Float[Array, "C 3"],
    projected: Float[Array, "C 2"],
    observed: Float[Array, "L 2"],
    own_facing: Float[Array, " L"],
    unit: float,
) -> Outline:
    """Finds the vertex of the visible outline nearest to every outline landmark.

    The jaw points of the 2D schemes slide along the cheek with the pose (Zhu et al. 2015): a fixed vertex would pull
    the pose. The candidate with the smallest |facing| x unit + distance in the picture is taken.

    Args:
        candidates, normals: vertices of the face's sides and their normals, camera frame.
        projected: the candidates in pixels.
        observed: outline landmarks in pixels.
        own_facing: `facing` of the landmarks' own surface points.
        unit: the size of the face, pixels.
    """
    cosine = facing(candidates, normals)
    distance = jnp.linalg.norm(observed[:, None] - projected[None], axis=-1) / unit
    # A candidate must be close to the outline first (cosine small), then close to the point.
    vertex = jnp.argmin(distance**2 + (0.7 * cosine[None]) ** 2, axis=1)
    normal = normals[vertex, :2]
    normal = normal / jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    weight = jnp.clip((0.45 - own_facing) / 0.2, 0.0, 1.0)
    return Outline(vertex, normal, weight)


def outline_residuals(
    projected: Float[Array, "L 2"],
    observed: Float[Array, "L 2"],
    outline: Outline,
    sigma: Float[Array, " L"],
    weight: Float[Array, " L"],
    outlier: float,
) -> Float[Array, " L"]:
    """Robust distances to the outline along its normal, in standard deviations.

    Args:
        projected: the matched vertices in pixels.
    """
    along = jnp.sum((projected - observed) * outline.normal, -1) / sigma
    return jnp.sqrt(weight * outline.weight) * geman_mcclure(along[:, None], outlier)[:, 0]
