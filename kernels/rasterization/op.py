"""Rasterization, triangles to fragments: the contract and the choice of implementation."""

from __future__ import annotations

import operator

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
    cull: bool = False,
) -> Fragments:
    """Finds the nearest triangles of every pixel.

    vertices_clip: (V, 4) float32 x, y, z, w; a point is drawn where -w <= z <= w. Pixel x = (x / w + 1) / 2 *
    W and pixel y = (y / w + 1) / 2 * H, rows downwards, the first pixel's centre at (0.5, 0.5). faces: (F, 3)
    int32. size: (H, W), static. fragments: K, static, how many triangles a pixel keeps; memory is linear in
    it. blur: static, pixels beyond their edges at which triangles still count. cull: static, leaves out
    triangles seen from behind, whose corners go round clockwise in the picture.

    A pixel keeps the triangles that its centre is in, or less than `blur` from, and whose z / w there is
    smallest; of equal depths the lower face index comes first. What lies behind the nearest K is left out
    (as PyTorch3D does), also where it is nearer in the picture. A centre on an edge shared by two triangles
    is in exactly one of them. Triangles without area, or with a corner that is not finite, are not drawn;
    those that cross the camera's plane are drawn where they are in front of it and are not blurred. Every
    implementation gives the same face indices.

    Outside its triangle a fragment has a negative `signed_distance`, to the nearest point of the triangle;
    its barycentric weights are clipped at zero and scaled to sum to one, and its depth is that of these
    weights. This is `rasterize_meshes` of PyTorch3D with `perspective_correct` and
    `clip_barycentric_coords`: its `dists` are -sign(d) d^2 (2 / min(H, W))^2 of our signed distance d, and
    its `blur_radius` is (2 blur / min(H, W))^2.

    `barycentric`, `depth` and `signed_distance` are differentiable in `vertices_clip`, in forward and reverse
    mode, to first order, for the faces each pixel shows; that a pixel may come to show another face is the
    business of `antialias`, or of `soft_blend`. Batched by `vmap`, in one call where only `vertices_clip` is
    batched.

    implementation: "native" (C++ on all cores, or CUDA), "reference" (plain JAX), or None for the best that
    works here.
    Raises ValueError for values that are not supported.
    """
    vertices_clip, faces = jnp.asarray(vertices_clip, jnp.float32), jnp.asarray(faces, jnp.int32)
    size, fragments, blur = checked(vertices_clip, faces, size, fragments, blur, "rasterize")
    operation = "rasterize" if fragments == 1 and blur == 0 else "fragments"
    if resolve(implementation, operation) == "native":
        from facefit_kernels.rasterization import native

        return native.rasterize(vertices_clip, faces, size, fragments, blur, bool(cull))
    return reference.rasterize(vertices_clip, faces, size, fragments, blur, bool(cull))


def checked(
    vertices_clip: Array, faces: Array, size: tuple[int, int], fragments: int, blur: float, name: str
) -> tuple[tuple[int, int], int, float]:
    """Size, fragments and blur as static values. Raises ValueError for what `rasterize` does not support."""
    fragments, blur = operator.index(fragments), float(blur)
    if fragments < 1:
        raise ValueError(f"{name}: fragments must be at least 1, got {fragments}")
    if not 0 <= blur < float("inf"):
        raise ValueError(f"{name}: blur must be a finite number of pixels, 0 or more, got {blur}")
    if vertices_clip.ndim != 2 or vertices_clip.shape[-1] != 4:
        raise ValueError(
            f"{name}: vertices_clip must be (V, 4), got {vertices_clip.shape}; use vmap for a batch"
        )
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"{name}: faces must be (F, 3), got {faces.shape}")
    return (int(size[0]), int(size[1])), fragments, blur
