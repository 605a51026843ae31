"""Identity feature loss: does a rendering look like the same person to a face recognition network?"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def cosine_similarity(a: Float[Array, "... D"], b: Float[Array, "... D"]) -> Float[Array, "..."]:
    """Cosine of the angle between features along the last axis; 0 where one of them is zero."""
    return jnp.sum(_unit(a) * _unit(b), -1)


def identity_feature_loss(
    rendered: Float[Array, "B D"], photographed: Float[Array, "B D"]
) -> Float[Array, ""]:
    """Mean over the batch of one minus the cosine of the features' angle: the perception loss of Deng et al.
    2019, 0 for the same direction and 2 for opposite ones, whatever the features' lengths.

    Args:
        rendered: features of the renderings, as `facefit.photo.descriptor` computes them.
        photographed: those of the photographs. They are data: the caller computes them outside of what is
            differentiated.
    """
    return jnp.mean(1 - cosine_similarity(rendered, photographed))


def _unit(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    # The floor keeps the derivative of a zero feature finite.
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))
