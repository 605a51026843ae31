"""Supervised terms: how far predicted coefficients are from known ones, measured on the surface they make.

Geometry and albedo are linear in the coefficients, so the mean squared error over all vertices is a quadratic
form of the coefficients' differences; its matrix is worked out once a model.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def similarity_directions(points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "7 N 3"]:
    """Orthonormal small motions of a point set: three shifts, three turns, one change of size. Host side."""
    centred = np.asarray(points, np.float64) - np.mean(points, axis=0)
    shifts = [np.broadcast_to(axis, centred.shape) for axis in np.eye(3)]
    turns = [np.cross(axis, centred) for axis in np.eye(3)]
    columns = np.stack([move.ravel() for move in [*shifts, *turns, centred]], 1)
    return np.linalg.qr(columns)[0].T.reshape(7, *centred.shape)


def shape_metric(
    basis: Float[np.ndarray, "K N 3"], points: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "K K"]:
    """The matrix of the mean squared vertex error after the best alignment, mm^2, for `quadratic_loss`.

    Alignment by a similarity, linearised at `points` (the mean face): a photograph tells neither the size of
    a face nor where its model's origin is. Host side.
    """
    flat = np.asarray(basis, np.float64).reshape(len(basis), -1)
    moves = similarity_directions(points).reshape(7, -1)
    left = flat - (flat @ moves.T) @ moves
    return left @ left.T / len(points)


def color_metric(basis: Float[np.ndarray, "K V 3"], weight: Float[np.ndarray, " V"]) -> np.ndarray:
    """The matrix of the weighted mean squared albedo error, summed over the channels, (K, K). Host side."""
    flat = np.asarray(basis, np.float64).reshape(len(basis), -1)
    share = np.repeat(np.asarray(weight, np.float64) / max(float(np.sum(weight)), 1e-9), 3)
    return (flat * share) @ flat.T


def quadratic_loss(
    difference: Float[Array, "B K"], metric: Float[Array, "K K"], known: Float[Array, " B"]
) -> Float[Array, ""]:
    """Mean of difference^T metric difference over the samples whose truth is known; 0 where none is.

    Args:
        difference: predicted minus true coefficients.
        metric: see `shape_metric`, `color_metric`.
        known: 1 or 0.
    """
    each = jnp.einsum("bk,kl,bl->b", difference, metric, difference)
    return jnp.sum(known * each) / jnp.maximum(jnp.sum(known), 1.0)
