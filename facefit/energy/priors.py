"""Prior terms: what is known of faces, cameras and light before a photograph is seen."""

from __future__ import annotations

import itertools

import jax
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


def pigment_residuals(albedo: Float[Array, "V 3"], sigma: float, least: float = 0.01) -> Float[Array, " D"]:
    """Nothing on a face reflects less than `least` of the light; and skin and hair reflect no less red than
    green and no less green than blue, melanin and blood see to that. What is bluer is the light.

    Args:
        albedo: linear RGB.
        sigma: how far either may be missed.
    """
    missed = jnp.concatenate([albedo - least, albedo[:, :2] - albedo[:, 1:]], axis=1)
    return (jnp.minimum(missed, 0.0) / sigma).ravel()


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


def coefficient_loss(
    identity: Float[Array, "*batch I"],
    expression: Float[Array, "*batch E"],
    albedo: Float[Array, "*batch A"],
    expression_sigma: float,
    is_blendshape: bool,
) -> Float[Array, ""]:
    """Squared coefficients in standard deviations, identity x 1, expression x 0.8, albedo x 0.017, summed,
    mean over the photographs (Deng et al. 2019).

    Expressions are counted as fitting counts them (`expression_residuals`): for a Gaussian basis the paper's
    term, for blendshapes with the steep penalty outside [0, 1].
    """
    batch = identity.shape[:-1]
    spread = jax.vmap(lambda one: expression_residuals(one, expression_sigma, is_blendshape))
    moved = spread(expression.reshape(-1, expression.shape[-1])).reshape(*batch, -1)
    each = jnp.sum(identity**2, -1) + 0.8 * jnp.sum(moved**2, -1) + 1.7e-2 * jnp.sum(albedo**2, -1)
    return jnp.mean(each)


def light_color_loss(lighting: Float[Array, "*batch 9 3"]) -> Float[Array, ""]:
    """Mean squared difference of every light coefficient from its mean over the channels: light is near white
    (Deng et al. 2019, L_gamma).

    In the units of `facefit.render.lighting`; the paper's are smaller by 0.886 for the ambient row, and by up
    to 1.5 the other way for the rest.
    """
    return jnp.mean((lighting - jnp.mean(lighting, -1, keepdims=True)) ** 2)


def reflectance_loss(albedo: Float[Array, "*batch V 3"], skin: Float[Array, " V"]) -> Float[Array, ""]:
    """Variance of the skin's albedo over its vertices, summed over the channels, mean over the faces (Deng et
    al. 2019, L_refl): what varies in the picture is rather light than paint.

    Args:
        albedo: linear RGB (the paper's is not linear).
        skin: 1 for the vertices that count.
    """
    total = jnp.maximum(jnp.sum(skin), 1.0)
    mean = jnp.einsum("v,...vc->...c", skin, albedo)[..., None, :] / total
    each = jnp.einsum("v,...vc->...", skin, (albedo - mean) ** 2) / total
    return jnp.mean(each)


def exposure_loss(lighting: Float[Array, "*batch 9 3"], log_sigma: float) -> Float[Array, ""]:
    """Mean square of `exposure_residual` over the photographs: not in the paper, whose light is free."""
    each = jax.vmap(lambda one: exposure_residual(one, log_sigma))(lighting.reshape(-1, 9, 3))
    return jnp.mean(each**2)
