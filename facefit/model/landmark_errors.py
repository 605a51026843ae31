"""How the dense landmark network errs: a table measured on renderings of known faces."""

from __future__ import annotations

import functools
from pathlib import Path

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from facefit.model.npz import read_arrays
from facefit.rotations import matrix_from_axis_angle

TABLE = Path(__file__).parent / "landmark_errors.npz"


@struct.dataclass
class LandmarkErrors:
    """Errors of the 468 points in outer-eye distances.

    Attributes:
        sigma: what each point errs by on its own, in the picture and in depth, (468, 2). Errors common to
            many points are larger, but cannot be told from a person's face.
        depth_bias: mean error of the depths of a face seen from the front, (468,). In the picture that is the
            model's `landmark_offset468`.
        drift: how the mean error changes with the direction that the face is seen from, beside each of
            `aspects`: right and down in the picture of an upright head, and in depth, (7, 468, 3).
    """

    sigma: Float[Array, "468 2"]
    depth_bias: Float[Array, " 468"]
    drift: Float[Array, "7 468 3"]


def aspects(direction: Float[Array, "3"]) -> Float[Array, " 7"]:
    """What the mean error depends on: x, y and some of their products; zero for a face that looks into the
    camera.

    Args:
        direction: from the face to the camera, model frame, unit length.
    """
    x, y = direction[0], direction[1]
    return jnp.stack([x, y, x * x, x * y, y * y, x**3, x * x * y])


def mean_error(
    errors: LandmarkErrors, rotation: Float[Array, "3"], translation: Float[Array, "3"]
) -> Float[Array, "468 3"]:
    """What the network errs by on average in a pose, beyond the model's `landmark_offset468`.

    Args:
        rotation, translation: of the face to the camera.

    Returns:
        Image x, image y and depth, in outer-eye distances.
    """
    matrix = matrix_from_axis_angle(rotation)
    direction = -(translation / jnp.linalg.norm(translation)) @ matrix * jnp.array([1.0, -1.0, -1.0])
    drift = jnp.tensordot(aspects(direction), errors.drift, axes=1)
    down = matrix[:2, 1] / jnp.maximum(jnp.linalg.norm(matrix[:2, 1]), 1e-6)
    right = jnp.stack([down[1], -down[0]])
    across = drift[:, :1] * right + drift[:, 1:2] * down
    return jnp.concatenate([across, drift[:, 2:] + errors.depth_bias[:, None]], axis=1)


@functools.lru_cache(maxsize=1)
def landmark_errors() -> LandmarkErrors:
    """The table that comes with facefit, made by `experiments/measure_landmark_errors.py` and
    `experiments/measure_landmark_drift.py`.
    """
    table = read_arrays(TABLE)
    names = ("sigma", "depth_bias", "drift")
    return LandmarkErrors(**{name: jnp.asarray(table[name], jnp.float32) for name in names})
