"""Rasterization, triangles to fragments: the contract and the choice of implementation."""

from __future__ import annotations

import jax.numpy as jnp
from facefit_kernels.fragments import Fragments
from facefit_kernels.implementations import Implementation, resolve
from facefit_kernels.rasterization import reference
from jaxtyping import Array, Float, Int


def rasterize(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    size: tuple[int, int],
    fragments: int = 1,
    blur: float = 0.0,
    implementation: Implementation = None,
) -> Fragments:
    """Finds the nearest triangle of every pixel.

    vertices_clip: (V, 4) float32 x, y, z, w; a point is drawn where -w <= z <= w. Pixel x = (x / w + 1) / 2 *
    W and pixel y = (y / w + 1) / 2 * H, rows downwards, the first pixel's centre at (0.5, 0.5). faces: (F, 3)
    int32. size: (H, W), static. fragments: K, how many triangles a pixel keeps; only 1 now. blur: pixels
    beyond their edges at which triangles still count; only 0 now.

    A pixel shows the triangle that its centre is in and whose z / w there is smallest; of equal depths the
    lower face index. A centre on an edge shared by two triangles is in exactly one of them. Both sides of a
    triangle are drawn. Triangles without area, or with a corner that is not finite, are not drawn; those that
    cross the camera's plane are drawn where they are in front of it. Every implementation gives the same face
    indices.

    `barycentric`, `depth` and `signed_distance` are differentiable in `vertices_clip`, in forward and reverse
    mode, to first order, for the face each pixel shows; that a pixel may come to show another face is
    `antialias`'s business. Batched by `vmap`, in one call where only `vertices_clip` is batched.

    implementation: "native" (C++, all cores), "reference" (plain JAX), or None for the best that works here.
    Raises ValueError for values that are not supported.
    """
    if fragments != 1:
        raise ValueError(f"rasterize: fragments must be 1 (the nearest triangle), got {fragments}")
    if blur != 0:
        raise ValueError(f"rasterize: blur must be 0 (hard edges), got {blur}")
    if vertices_clip.ndim != 2 or vertices_clip.shape[-1] != 4:
        raise ValueError(
            f"rasterize: vertices_clip must be (V, 4), got {vertices_clip.shape}; use vmap for a batch"
        )
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"rasterize: faces must be (F, 3), got {faces.shape}")
    vertices_clip, faces = jnp.asarray(vertices_clip, jnp.float32), jnp.asarray(faces, jnp.int32)
    size = (int(size[0]), int(size[1]))
    if resolve(implementation) == "native":
        from facefit_kernels.rasterization import native

        return native.rasterize(vertices_clip, faces, size)
    return reference.rasterize(vertices_clip, faces, size)
