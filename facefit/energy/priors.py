"""Prior terms: what is known of faces, cameras and light before a photograph is seen."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facefit.render.lighting import irradiance

_CUBE = np.float32([step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)])
_AROUND = _CUBE / np.linalg.norm(_CUBE, axis=1, keepdims=True)  # directions to 6 faces, 12 edges, 8 corners


def expression_residuals(
    expression: Float[Array, " E"],
    sigma: float | Float[Array, " E"],
    is_blendshape: bool,
    bound_sigma: float = 0.03,
) -> Float[Array, " D"]:
    """Most expressions are slight; a blendshape weight outside [0, 1] is penalised steeply on top.

    Args:
        sigma: standard deviation of the weights, or of each.
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


def shadow_residuals(lighting: Float[Array, "9 3"], sigma: float, least: float = 0.05) -> Float[Array, " D"]:
    """Light adds: no side of a face gets less than none, though a second-order expansion can say so.

    Args:
        sigma: how far the irradiance may fall below the least, in 26 directions.
        least: some light goes everywhere, from the room.
    """
    return (jnp.minimum(irradiance(jnp.asarray(_AROUND), lighting) - least, 0.0) / sigma).ravel()


def dark_residuals(albedo: Float[Array, "V 3"], sigma: float, least: float = 0.01) -> Float[Array, " D"]:
    """Nothing on a face reflects less than `least` of the light; V vertices count as one tenth of them."""
    return (jnp.minimum(albedo - least, 0.0) / sigma).ravel() * jnp.sqrt(0.1)


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
