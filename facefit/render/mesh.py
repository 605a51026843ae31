"""Normals of a triangle mesh."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from facefit_kernels import vertex_normals
from jaxtyping import Array, Float, Int

__all__ = ["boundary_vertices", "face_normals", "normalize", "vertex_normals"]


def face_normals(vertices: Float[Array, "V 3"], faces: Int[Array, "F 3"]) -> Float[Array, "F 3"]:
    """Normals of the triangles, not normalised: their length is twice the triangle's area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return jnp.cross(b - a, c - a)


def normalize(v: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Unit vectors; a zero vector stays zero and has a finite derivative."""
    squared = jnp.sum(v * v, axis=-1, keepdims=True)
    return v / jnp.sqrt(jnp.maximum(squared, 1e-20))


def boundary_vertices(faces: np.ndarray) -> np.ndarray:
    """Indices of vertices on an edge with a single triangle. Host side."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])
