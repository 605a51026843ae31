"""Robust residuals: what stops hair, glasses, hands and bad landmarks from pulling the face."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def geman_mcclure(residual: Float[Array, "... D"], scale: float) -> Float[Array, "... D"]:
    """Shrinks residual vectors so that half their squared norm is the Geman-McClure penalty.

    |result|^2 = |r|^2 / (1 + |r|^2 / scale^2): quadratic for small residuals, never more than scale^2 for
    large ones. The result is a smooth residual itself, so a least-squares solver needs no reweighting and
    sees the true energy (the square-root construction of Engels et al. 2006).

    Args:
        residual: vectors along the last axis, in standard deviations.
        scale: where a residual starts to count as an outlier, in standard deviations.
    """
    squared = jnp.sum(residual * residual, axis=-1, keepdims=True)
    return residual / jnp.sqrt(1.0 + squared / (scale * scale))
