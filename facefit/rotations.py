"""Rotations in three dimensions as axis-angle vectors, with derivatives that are finite at zero."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def skew(v: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The matrix K with K @ u = v x u."""
    zero = jnp.zeros_like(v[0])
    return jnp.stack(
        [
            jnp.stack([zero, -v[2], v[1]]),
            jnp.stack([v[2], zero, -v[0]]),
            jnp.stack([-v[1], v[0], zero]),
        ]
    )


def matrix_from_axis_angle(v: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rodrigues' formula: the rotation about v by |v| radians. Differentiable everywhere, v = 0 included."""
    squared = jnp.dot(v, v)
    small = squared < 1e-6
    safe = jnp.where(small, 1.0, squared)
    angle = jnp.sqrt(safe)
    # Both branches of a `where` are differentiated: the large-angle one is fed a harmless angle near zero.
    sine = jnp.where(small, 1.0 - squared / 6.0, jnp.sin(angle) / angle)
    cosine = jnp.where(small, 0.5 - squared / 24.0, (1.0 - jnp.cos(angle)) / safe)
    k = skew(v)
    return jnp.eye(3, dtype=v.dtype) + sine * k + cosine * (k @ k)


def axis_angle_from_matrix(matrix: Float[Array, "3 3"]) -> Float[Array, "3"]:
    """Inverse of `matrix_from_axis_angle` for rotations of at most pi radians, through the unit quaternion.

    Not meant to be differentiated.
    """
    m = matrix
    # The largest of the four quaternion components is found first: dividing by it is safe (Shepperd 1978).
    candidates = jnp.stack(
        [
            jnp.stack(
                [1 + m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]
            ),
            jnp.stack(
                [m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0]]
            ),
            jnp.stack(
                [m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], 1 - m[0, 0] + m[1, 1] - m[2, 2], m[2, 1] + m[1, 2]]
            ),
            jnp.stack(
                [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2]]
            ),
        ]
    )
    best = candidates[jnp.argmax(jnp.diagonal(candidates))]
    q = best / jnp.linalg.norm(best)
    q = jnp.where(q[0] < 0, -q, q)
    length = jnp.linalg.norm(q[1:])
    angle = 2.0 * jnp.arctan2(length, q[0])
    return q[1:] * jnp.where(length < 1e-8, 2.0, angle / jnp.maximum(length, 1e-8))
