"""Texture sampling in plain JAX: the meaning of the operation, on any device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sides of every level of a pyramid: halved as long as both are even."""
    sizes = [(height, width)]
    while height % 2 == 0 and width % 2 == 0 and min(height, width) > 1:
        height, width = height // 2, width // 2
        sizes.append((height, width))
    return sizes


def pyramid_of(picture: Float[Array, "T S C"], levels: int) -> Float[Array, "N C"]:
    """All levels one after the other, rows after rows; each texel is the mean of four of the level before."""
    parts = [picture]
    for _ in range(levels - 1):
        height, width, channels = parts[-1].shape
        parts.append(parts[-1].reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3)))
    return jnp.concatenate([part.reshape(-1, picture.shape[-1]) for part in parts])


def _sample(pyramid, offset, height, width, coordinates, wrap: bool):
    """Bilinear samples of one level; offset, height and width are numbers or (M,)."""
    u, v = coordinates[..., 0], coordinates[..., 1]
    if wrap:
        u, v = u - jax.lax.stop_gradient(jnp.floor(u)), v - jax.lax.stop_gradient(jnp.floor(v))
    x, y = u * width - 0.5, (1 - v) * height - 0.5
    if not wrap:
        x, y = jnp.clip(x, -1.0, width), jnp.clip(y, -1.0, height)
    x0, y0 = jax.lax.stop_gradient(jnp.floor(x)), jax.lax.stop_gradient(jnp.floor(y))
    fx, fy = x - x0, y - y0
    total = 0.0
    for row, by in ((0, 1 - fy), (1, fy)):
        for column, bx in ((0, 1 - fx), (1, fx)):
            i, j = y0.astype(jnp.int32) + row, x0.astype(jnp.int32) + column
            if wrap:
                i, j = i % height, j % width
            i, j = jnp.clip(i, 0, height - 1), jnp.clip(j, 0, width - 1)
            total = total + (bx * by)[..., None] * pyramid[offset + i * width + j]
    return total


def texture(
    pyramid: Float[Array, "N C"],
    sizes: list[tuple[int, int]],
    coordinates: Float[Array, "M 2"],
    level: Float[Array, " M"] | None,
    wrap: bool,
) -> Float[Array, "M C"]:
    """Samples of a pyramid whose levels have these sizes; see `op.texture`."""
    if level is None or len(sizes) == 1:
        return _sample(pyramid, 0, *sizes[0], coordinates, wrap)
    heights, widths = (jnp.asarray([size[axis] for size in sizes], jnp.int32) for axis in (0, 1))
    offsets = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(heights * widths)[:-1]])
    level = jnp.clip(level, 0.0, len(sizes) - 1.0)
    low = jax.lax.stop_gradient(jnp.minimum(jnp.floor(level), len(sizes) - 2)).astype(jnp.int32)
    share = (level - low)[..., None]
    below, above = (
        _sample(pyramid, offsets[k], heights[k], widths[k], coordinates, wrap) for k in (low, low + 1)
    )
    return (1 - share) * below + share * above
