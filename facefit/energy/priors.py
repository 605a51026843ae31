"""Prior terms: what is known of faces, cameras and light before a photograph is seen."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def expression_residuals(
    expression: Float[Array, " E"], sigma: float, is_blendshape: bool, bound_sigma: float = 0.03
) -> Float[Array, " D"]:
    """Most expressions are slight; a blendshape weight outside [0, 1] is penalised steeply on top.

    Args:
        sigma: standard deviation of a weight.
        bound_sigma: how far a blendshape weight may leave [0, 1].
    """
    centred = expression / sigma
    if not is_blendshape:
        return centred
    outside = jnp.minimum(expression, 0.0) + jnp.maximum(expression - 1.0, 0.0)
    return jnp.concatenate([centred, outside / bound_sigma])


def lighting_residuals(lighting: Float[Array, "9 3"], sigma: float, color_sigma: float) -> Float[Array, " D"]:
    """Light is near white and not much stronger from one side than on average.

    Args:
        sigma: of the first- and second-order coefficients, as a fraction of the ambient one.
        color_sigma: of a coefficient's difference from its mean over the channels (Deng et al. 2019,
            L_gamma).
    """
    level = jnp.maximum(jnp.mean(lighting[0]), 0.05)
    directional = lighting[1:] / (level * sigma)
    color = (lighting - jnp.mean(lighting, axis=1, keepdims=True)) / (level * color_sigma)
    return jnp.concatenate([directional.ravel(), color.ravel()])


def exposure_residual(lighting: Float[Array, "9 3"], log_sigma: float) -> Float[Array, "1"]:
    """Cameras expose so that a white matt surface comes out just below white: mean irradiance is about one.

    Without it nothing but the albedo's prior tells dark skin in bright light from light skin in dim light.
    """
    return jnp.log(jnp.maximum(jnp.mean(lighting[0]), 0.02))[None] / log_sigma


def distance_residual(distance: Float[Array, ""], mean: float, log_sigma: float) -> Float[Array, ""]:
    """Photographs of faces are taken from about arm's length to a few metres: log-normal in the distance.

    Args:
        distance: camera to face, millimetres.
        mean: median distance, millimetres.
    """
    return (jnp.log(jnp.maximum(distance, 1.0)) - jnp.log(mean)) / log_sigma
