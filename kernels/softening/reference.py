"""Soft blending in plain JAX: the meaning of the operation, on any device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.interpolation import reference as interpolation
from facefit_kernels.rasterization import reference as rasterization
from jaxtyping import Array, Float, Int

# Nearness that the background has, and the least weight of it.
BACKGROUND = 1e-10


@jax.jit
def soft_blend(
    values: Float[Array, "H W K C"],
    face_index: Int[Array, "H W K"],
    depth: Float[Array, "H W K"],
    signed_distance: Float[Array, "H W K"],
    background: Float[Array, "H W C"],
    softness: Float[Array, "2"],
) -> tuple[Float[Array, "H W C"], Float[Array, "H W"]]:
    """The blended image and its coverage; see `op.soft_blend`. softness: sigma and gamma."""
    there = face_index >= 0
    sigma, gamma = softness[0], softness[1]
    chance = jnp.where(there, jax.nn.sigmoid(signed_distance * jnp.abs(signed_distance) / sigma), 0.0)
    coverage = 1.0 - jnp.prod(1.0 - chance, axis=-1)
    nearness = jnp.where(there, 0.5 - 0.5 * depth, 0.0)
    top = jnp.maximum(jnp.max(nearness, axis=-1, initial=0.0), BACKGROUND)
    weight = chance * jnp.exp((nearness - top[..., None]) / gamma)
    rest = jnp.maximum(jnp.exp((BACKGROUND - top) / gamma), BACKGROUND)
    total = jnp.sum(weight, axis=-1) + rest
    blended = jnp.sum(weight[..., None] * jnp.where(there[..., None], values, 0.0), axis=-2)
    return (blended + rest[..., None] * background) / total[..., None], coverage


def soft_render(vertices, faces, attributes, background, softness, size, fragments, blur, cull=False):
    """The three operations one after the other; see `op.soft_render`."""
    drawn = rasterization.rasterize(vertices, faces, size, fragments, blur, cull)
    values = interpolation.interpolate(attributes, faces, drawn)
    return soft_blend(values, drawn.face_index, drawn.depth, drawn.signed_distance, background, softness)
