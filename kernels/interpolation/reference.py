"""Interpolation in plain JAX: the meaning of the operation, on any device."""

from __future__ import annotations

import jax.numpy as jnp
from facefit_kernels.fragments import Fragments
from jaxtyping import Array, Float, Int


def interpolate(
    attributes: Float[Array, "V C"], faces: Int[Array, "F 3"], fragments: Fragments
) -> Float[Array, "H W K C"]:
    """Attributes at every fragment: the corners' values weighted by `fragments.barycentric`; zero where
    nothing.
    """
    face_index = fragments.face_index
    if faces.shape[0] == 0 or attributes.shape[0] == 0:
        return jnp.zeros((*face_index.shape, attributes.shape[-1]), attributes.dtype)
    corners = faces[jnp.maximum(face_index, 0)]
    weights = jnp.where(face_index[..., None] >= 0, fragments.barycentric, 0.0)
    # Written out: XLA's sum over an axis of three takes ten times as long on a CPU.
    first, second, third = (weights[..., k, None] * attributes[corners[..., k]] for k in range(3))
    return first + second + third
