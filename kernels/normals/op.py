"""Normals at the vertices of a mesh: the contract and the choice of implementation."""

from __future__ import annotations

import jax.numpy as jnp
from facefit_kernels.implementations import Implementation, resolve
from facefit_kernels.normals import reference
from jaxtyping import Array, Float, Int


def vertex_normals(
    vertices: Float[Array, "V 3"], faces: Int[Array, "F 3"], implementation: Implementation = None
) -> Float[Array, "V 3"]:
    """Unit normals of the vertices: the mean of the adjacent triangles' normals, weighted by area.

    vertices: (V, 3) float32. faces: (F, 3) int32. A vertex that no triangle uses gets a zero normal; a face
    that names a vertex which does not exist is left out. Differentiable in `vertices`, in forward and reverse
    mode, to first order. Batched by `vmap`. Raises ValueError for shapes that do not fit.
    """
    vertices, faces = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32)
    if vertices.ndim != 2 or vertices.shape[-1] != 3:
        raise ValueError(
            f"vertex_normals: vertices must be (V, 3), got {vertices.shape}; use vmap for a batch"
        )
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"vertex_normals: faces must be (F, 3), got {faces.shape}")
    if resolve(implementation, "vertex_normals") == "native":
        from facefit_kernels.normals import native

        return native.vertex_normals(vertices, faces)
    return reference.vertex_normals(vertices, faces)
