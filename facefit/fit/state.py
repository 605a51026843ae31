"""The solver's parameters: those of the model, but with a camera that is well conditioned in a picture."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from facefit.fit.observation import Observation


@struct.dataclass
class Shared:
    """Common to all photographs: identity (I,), albedo (A,), and the focal length of every camera in log px,
    (G,).
    """

    identity: Float[Array, " I"]
    albedo: Float[Array, " A"]
    log_focal: Float[Array, " G"]


@struct.dataclass
class Pose:
    """The face's place and size in the picture stand for its translation: changing the focal length then
    leaves the picture of the face almost as it is, which keeps the two from fighting.

    Attributes:
        rotation: axis-angle, camera frame, (3,).
        place: where the model's origin projects to, crop pixels, (2,).
        log_scale: logarithm of crop pixels per millimetre at the origin's depth, ().
    """

    rotation: Float[Array, "3"]
    place: Float[Array, "2"]
    log_scale: Float[Array, ""]


@struct.dataclass
class View:
    """Of one photograph.

    Attributes:
        expression: (E,).
        pose: of the head.
        lighting: (9, 3).
        depth_zero: the depth from which the network counts its depths, crop pixels, ().
    """

    expression: Float[Array, " E"]
    pose: Pose
    lighting: Float[Array, "9 3"]
    depth_zero: Float[Array, ""]


def camera(
    log_focal: Float[Array, ""], pose: Pose, observation: Observation
) -> tuple[Float[Array, ""], Float[Array, "3"]]:
    """Focal length in crop pixels, and the translation in millimetres.

    Args:
        log_focal: of the photograph's camera, photograph pixels.
    """
    focal = jnp.exp(log_focal) / observation.photo_px
    depth = focal * jnp.exp(-pose.log_scale)
    aside = (pose.place - observation.principal) / focal * depth
    return focal, jnp.concatenate([aside, depth[None]])
