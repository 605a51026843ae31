"""Antialiasing, the gradient of visibility: the contract and the choice of implementation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.antialiasing import reference
from facefit_kernels.fragments import Fragments
from facefit_kernels.implementations import Implementation, resolve
from jaxtyping import Array, Float, Int


def neighbors(faces: Int[Array, "F 3"], implementation: Implementation = None) -> Int[Array, "F 3"]:
    """The face across the edge opposite each corner; -1 at a boundary and where more than two faces meet.

    What `antialias` needs to know of the mesh beside its faces. It finds it by itself; a caller whose faces
    stay the same may do so once.
    """
    if resolve(implementation, "antialias") == "native" and isinstance(faces, jax.core.Tracer):
        from facefit_kernels.antialiasing import native

        return native.neighbors(jnp.asarray(faces, jnp.int32))
    # Faces are mostly known while tracing; nothing is then left to do at run time, and XLA would spend
    # seconds on folding a sort of constants.
    known = not isinstance(faces, jax.core.Tracer)
    return reference.neighbors(np.asarray(faces, np.int32), np) if known else reference.neighbors(faces, jnp)


def antialias(
    image: Float[Array, "H W C"],
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    fragments: Fragments,
    implementation: Implementation = None,
    adjacent: Int[Array, "F 3"] | None = None,
) -> Float[Array, "H W C"]:
    """Blends the pixels on silhouettes by how much of each the surfaces cover, which makes visibility
    differentiable.

    image: (H, W, C) float32, a value for every pixel's centre, background included. vertices_clip, faces,
    fragments: those it was rendered with; of several fragments the nearest counts. adjacent:
    `neighbors(faces)`, found here where it is None. Returns (H, W, C).

    Between each two neighbouring pixels that show different faces the mesh is followed from one centre to the
    other. Where the surface ends on the way (at a boundary edge, or where it turns away), the pixel in which
    the edge lies is mixed with its neighbour by the distance of the edge from the middle between both. An
    edge is counted across the direction it is steeper to, so that each piece of a silhouette moves area once.

    The blend is that of Laine et al. 2020, "Modular primitives for high-performance differentiable
    rendering"; the edge is found by a walk over the mesh and not among the edges of the two triangles shown,
    which are the wrong ones where triangles are about as small as pixels. Outer silhouettes and those of a
    surface against itself are treated alike. Not done: lines where surfaces intersect, and edges in the half
    pixel at the picture's border.

    Differentiable in `image` and `vertices_clip`, in forward and reverse mode, to first order. Batched by
    `vmap`.
    """
    if image.ndim != 3 or image.shape[:2] != fragments.face_index.shape[:2]:
        raise ValueError(
            f"antialias: image must be (H, W, C) with the fragments' size "
            f"{fragments.face_index.shape[:2]}, got {image.shape}"
        )
    adjacent = neighbors(faces, implementation) if adjacent is None else adjacent
    adjacent = jnp.asarray(adjacent, jnp.int32)
    image, vertices_clip = jnp.asarray(image, jnp.float32), jnp.asarray(vertices_clip, jnp.float32)
    faces = jnp.asarray(faces, jnp.int32)
    face_index = fragments.face_index[..., 0]
    if resolve(implementation, "antialias") == "native":
        from facefit_kernels.antialiasing import native

        return native.antialias(image, vertices_clip, faces, face_index, adjacent)
    return reference.antialias(image, vertices_clip, faces, face_index, adjacent)
