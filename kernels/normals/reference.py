"""Vertex normals in plain JAX: the meaning of the operation, on any device."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Squared lengths below this count as this: a zero normal stays zero and has a finite derivative.
SHORTEST = 1e-20


def vertex_normals(vertices: Float[Array, "V 3"], faces: Int[Array, "F 3"]) -> Float[Array, "V 3"]:
    """Unit normals of the vertices; see `op.vertex_normals`."""
    if 0 in (vertices.shape[0], faces.shape[0]):
        return jnp.zeros_like(vertices)
    exists = jnp.all((faces >= 0) & (faces < vertices.shape[0]), axis=-1)
    faces = jnp.where(exists[:, None], faces, vertices.shape[0])
    a, b, c = (vertices.at[faces[:, k]].get(mode="fill", fill_value=0.0) for k in range(3))
    per_face = jnp.cross(b - a, c - a)
    total = jnp.zeros_like(vertices)
    for corner in range(3):
        total = total.at[faces[:, corner]].add(per_face, mode="drop")
    squared = jnp.sum(total * total, axis=-1, keepdims=True)
    return total / jnp.sqrt(jnp.maximum(squared, SHORTEST))
