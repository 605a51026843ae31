"""What the network predicts, in the parameter record's units, and the fixed camera it predicts for."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from facefit.model import Parameters, ViewParameters
from facefit.photo.face_crop import CROP_FOCAL

# Standard deviation of a blendshape's weight: what a network output of one stands for. As in fitting.
EXPRESSION_SIGMA = 0.25
# Millimetres that an output of one stands for: Deng et al. count in decimetres.
TRANSLATION_UNIT = 100.0


@struct.dataclass
class Coefficients:
    """Predicted for photographs' crops; any leading axes, the same for all.

    Attributes:
        identity, albedo: standard deviations, (..., I), (..., A).
        expression: as the model's basis counts it (blendshape weights, or standard deviations), (..., E).
        lighting: spherical harmonics, linear RGB, camera frame, (..., 9, 3).
        rotation: axis-angle, camera frame, (..., 3).
        translation: of the model's origin in the crop's camera frame, millimetres, (..., 3).
    """

    identity: Float[Array, "*batch I"]
    expression: Float[Array, "*batch E"]
    albedo: Float[Array, "*batch A"]
    lighting: Float[Array, "*batch 9 3"]
    rotation: Float[Array, "*batch 3"]
    translation: Float[Array, "*batch 3"]


@struct.dataclass
class Start:
    """What zero outputs mean, and what an output of one means, beside the standard deviations.

    Attributes:
        translation: of the mean face where it stands upright in the middle of the crop, millimetres, (3,).
        lighting: (9, 3), white ambient light of unit irradiance.
        expression_scale: of the expression coefficients.
    """

    translation: Float[Array, "3"]
    lighting: Float[Array, "9 3"]
    expression_scale: Float[Array, ""]


def crop_matrix(size: int) -> Float[Array, "3 3"]:
    """Pinhole matrix of the encoder's camera for a crop of `size` pixels."""
    focal, middle = CROP_FOCAL * size, size / 2.0
    return jnp.asarray([[focal, 0.0, middle], [0.0, focal, middle], [0.0, 0.0, 1.0]], jnp.float32)


def coefficients(outputs: dict[str, Float[Array, "*batch C"]], start: Start) -> Coefficients:
    """The seven heads' outputs as coefficients; outputs of zero are the mean face at the start.

    Args:
        outputs: identity, expression, albedo, rotation (3), lighting (27, as Deng et al. channel by channel),
            place (2) and depth (1).
    """
    lighting = outputs["lighting"]
    moved = jnp.concatenate([outputs["place"], outputs["depth"]], -1)
    return Coefficients(
        identity=outputs["identity"],
        expression=start.expression_scale * outputs["expression"],
        albedo=outputs["albedo"],
        lighting=start.lighting + jnp.swapaxes(lighting.reshape(*lighting.shape[:-1], 3, 9), -1, -2),
        rotation=outputs["rotation"],
        translation=start.translation + TRANSLATION_UNIT * moved,
    )


def to_parameters(found: Coefficients, size: int) -> Parameters:
    """The record of fitting: N photographs of one subject, whose identity and albedo must already be one.

    Args:
        found: identity (I,) and albedo (A,), the others with a leading axis N.
        size: of the crops, pixels; the focal length is that of the crop's camera.
    """
    count = found.rotation.shape[0]
    return Parameters(
        identity=found.identity,
        albedo=found.albedo,
        views=ViewParameters(
            expression=found.expression,
            rotation=found.rotation,
            translation=found.translation,
            log_focal=jnp.full((count,), jnp.log(CROP_FOCAL * size), jnp.float32),
            lighting=found.lighting,
        ),
    )
