"""Interpolation of vertex attributes over fragments: the contract and the choice of implementation."""

from __future__ import annotations

import jax.numpy as jnp
from facefit_kernels.fragments import Fragments
from facefit_kernels.implementations import Implementation, resolve
from facefit_kernels.interpolation import reference
from jaxtyping import Array, Float, Int


def interpolate(
    attributes: Float[Array, "V C"],
    faces: Int[Array, "F 3"],
    fragments: Fragments,
    implementation: Implementation = None,
) -> Float[Array, "H W K C"]:
    """Vertex attributes at every fragment, perspective-correct.

    attributes: (V, C) float32, any number of channels. faces: (F, 3) int32, those that were rasterized.
    Returns (H, W, K, C); zero where nothing was hit. Linear in `attributes` and in `fragments.barycentric`,
    and differentiable in both, in forward and reverse mode; through `barycentric` also in the vertices.
    Batched by `vmap`.
    """
    attributes, faces = jnp.asarray(attributes, jnp.float32), jnp.asarray(faces, jnp.int32)
    if attributes.ndim != 2:
        raise ValueError(
            f"interpolate: attributes must be (V, C), got {attributes.shape}; add a channel axis"
        )
    if resolve(implementation, "interpolate") == "native":
        from facefit_kernels.interpolation import native

        return native.interpolate(attributes, faces, fragments)
    return reference.interpolate(attributes, faces, fragments)
