"""How the dense landmark network errs: a table measured on renderings of known faces."""

from __future__ import annotations

import functools
from pathlib import Path

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from facefit.model.npz import read_arrays

TABLE = Path(__file__).parent / "landmark_drift.npz"


@struct.dataclass
class LandmarkDrift:
    """Errors of the 468 points in outer-eye distances, camera frame (x, y, depth).

    They move together (the whole jaw, all depths): modes that a fit estimates beside the face keep them from
    being read as evidence about identity (factor analysis with D factors).

    Attributes:
        modes: one standard deviation of each mode, (468, 3, D).
        sigma: what remains of each point: in the picture and in depth, (468, 2).
        depth_bias: mean error of the depths, (468,).
    """

    modes: Float[Array, "468 3 D"]
    sigma: Float[Array, "468 2"]
    depth_bias: Float[Array, " 468"]


@functools.lru_cache(maxsize=1)
def landmark_drift() -> LandmarkDrift:
    """The table that comes with facefit, made by `experiments/build_landmark_drift.py`."""
    table = read_arrays(TABLE)
    return LandmarkDrift(
        **{name: jnp.asarray(table[name], jnp.float32) for name in ("modes", "sigma", "depth_bias")}
    )
