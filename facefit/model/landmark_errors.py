"""How the dense landmark network errs: a table measured on renderings of known faces."""

from __future__ import annotations

import functools
from pathlib import Path

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from facefit.model.npz import read_arrays

TABLE = Path(__file__).parent / "landmark_errors.npz"


@struct.dataclass
class LandmarkErrors:
    """Errors of the 468 points in outer-eye distances.

    Attributes:
        sigma: what each point errs by on its own, in the picture and in depth, (468, 2). Errors common to
            many points are larger, but cannot be told from a person's face.
        depth_bias: mean error of the depths, (468,).
    """

    sigma: Float[Array, "468 2"]
    depth_bias: Float[Array, " 468"]


@functools.lru_cache(maxsize=1)
def landmark_errors() -> LandmarkErrors:
    """The table that comes with facefit, made by `experiments/measure_landmark_errors.py`."""
    table = read_arrays(TABLE)
    return LandmarkErrors(**{name: jnp.asarray(table[name], jnp.float32) for name in ("sigma", "depth_bias")})
