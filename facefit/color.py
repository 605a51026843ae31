"""The border between files, which hold sRGB, and computation, which is in linear light (IEC 61966-2-1)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Mean spread of the three sRGB values below which a picture is a grey one; JPEG tints grey a little.
_GREY = 0.015
LUMINANCE = np.float32([0.2126, 0.7152, 0.0722])  # shares of linear red, green and blue (Rec. 709)


def srgb_to_linear(srgb: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Decodes sRGB in [0, 1] to linear light in [0, 1]."""
    low = srgb / 12.92
    high = ((jnp.maximum(srgb, 0.0) + 0.055) / 1.055) ** 2.4
    return jnp.where(srgb <= 0.04045, low, high)


def linear_to_srgb(linear: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Encodes linear light as sRGB; values outside [0, 1] are clipped first."""
    linear = jnp.clip(linear, 0.0, 1.0)
    # The floor keeps the unused branch's derivative finite at zero.
    # As exponential and logarithm, which CPUs compute eight at a time; a power they do not.
    high = 1.055 * jnp.exp(jnp.log(jnp.maximum(linear, 1e-6)) / 2.4) - 0.055
    return jnp.where(linear <= 0.0031308, 12.92 * linear, high)


def luminance(linear: Float[Array, "*shape 3"]) -> Float[Array, "*shape"]:
    """Relative luminance of linear RGB (Rec. 709)."""
    return linear @ jnp.asarray(LUMINANCE, linear.dtype)


def is_grey(srgb: Float[np.ndarray, "H W 3"]) -> bool:
    """Whether a picture has no colours. On the host.

    Args:
        srgb: in [0, 1].
    """
    return bool(np.ptp(srgb, axis=-1).mean() < _GREY)


def linear_to_srgb_unclipped(linear: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """As `linear_to_srgb`, but its two pieces go on beyond [0, 1]: an over-exposed rendering keeps a gradient
    that leads it back.
    """
    high = 1.055 * jnp.maximum(linear, 1e-6) ** (1 / 2.4) - 0.055
    return jnp.where(linear <= 0.0031308, 12.92 * linear, high)
