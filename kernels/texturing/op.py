"""Textures: sampling them, the level to sample them at, and drawing a mesh in their space."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.fragments import Fragments
from facefit_kernels.implementations import Implementation, resolve
from facefit_kernels.rasterization import reference as rasterization
from facefit_kernels.rasterization.op import rasterize
from facefit_kernels.texturing import reference
from jaxtyping import Array, Float, Int


def texture(
    picture: Float[Array, "T S C"],
    coordinates: Float[Array, "*shape 2"],
    level: Float[Array, "*shape"] | None = None,
    wrap: bool = False,
    implementation: Implementation = None,
) -> Float[Array, "*shape C"]:
    """Samples a picture between its texels, and between its mip levels where `level` is given.

    picture: (T, S, C) float32. coordinates: (..., 2) float32 u and v; u goes right and v goes up, (0, 0) and
    (1, 1) are the outer corners of the lower left and the upper right texel, row 0 is at v = 1 (as in OBJ;
    glTF counts v down). Values that are not finite count as 0 and get no gradient. level: (...), 0 is the
    picture, each further one has half its sides; values outside those that exist count as the nearest that
    does (see `mip_level`). wrap: the picture repeats; otherwise its border goes on outside. Returns (..., C).

    A level's texel is the mean of the four texels below it. There are as many levels as the sides can be
    halved without rest, so give a picture whose sides are powers of two, or multiples of a large one.

    Differentiable in `picture`, `coordinates` and `level`, in forward and reverse mode, to first order; in
    the coordinates it is the slope between the texels around. Batched by `vmap`. The filtering is that of
    Williams 1983, "Pyramidal parametrics". Raises ValueError for shapes that do not belong together.
    """
    picture = jnp.asarray(picture, jnp.float32)
    coordinates = jnp.asarray(coordinates, jnp.float32)
    if picture.ndim != 3 or 0 in picture.shape[:2]:
        raise ValueError(f"texture: picture must be (T, S, C) with texels, got {picture.shape}")
    if coordinates.ndim < 1 or coordinates.shape[-1] != 2:
        raise ValueError(f"texture: coordinates must be (..., 2), got {coordinates.shape}")
    shape = coordinates.shape[:-1]
    sizes = reference.level_sizes(*picture.shape[:2])
    if level is None:
        sizes = sizes[:1]
    else:
        level = jnp.asarray(level, jnp.float32)
        if level.shape != shape:
            raise ValueError(f"texture: level must be {shape}, as coordinates, got {level.shape}")
        level = jnp.where(jnp.isfinite(level), level, 0.0).reshape(-1)
    coordinates = jnp.where(jnp.isfinite(coordinates), coordinates, 0.0).reshape(-1, 2)
    pyramid = reference.pyramid_of(picture, len(sizes))
    if resolve(implementation, "texture") == "native":
        from facefit_kernels.texturing.native import texture as sample
    else:
        sample = reference.texture
    return sample(pyramid, sizes, coordinates, level, wrap).reshape(*shape, picture.shape[-1])


def mip_level(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    fragments: Fragments,
    uv: Float[Array, "U 2"],
    uv_faces: Int[Array, "F 3"],
    picture_size: tuple[int, int],
) -> Float[Array, "H W K"]:
    """The level at which a texel is about as large as a pixel, for `texture`; 0 where nothing is shown.

    vertices_clip, faces, fragments: those that were rasterized. uv, uv_faces: texture coordinates and the
    three of each face. picture_size: (T, S) of the texture. The level is log2 of the longer of the steps, in
    texels, that a step of one pixel right or down makes on the surface; negative where the texture is
    magnified. It has no gradient.
    """
    vertices_clip, faces = jnp.asarray(vertices_clip, jnp.float32), jnp.asarray(faces, jnp.int32)
    face_index = fragments.face_index
    if faces.shape[0] == 0 or vertices_clip.shape[0] == 0:
        return jnp.zeros(face_index.shape)
    height, width = face_index.shape[:2]
    texels = jnp.asarray([picture_size[1], picture_size[0]], jnp.float32)
    corners = (jnp.asarray(uv, jnp.float32) * texels)[jnp.asarray(uv_faces)[jnp.maximum(face_index, 0)]]

    def squared_step(axis, pixels):
        # A step of the pixel is a step of the mesh the other way.
        moved = jnp.zeros_like(vertices_clip).at[:, axis].set(-2.0 / pixels * vertices_clip[:, 3])
        (_, (weights, _, _)) = jax.jvp(
            lambda v: rasterization.fragment_surface(v, faces, face_index), (vertices_clip,), (moved,)
        )
        return jnp.sum(jnp.sum(weights[..., None] * corners, axis=-2) ** 2, axis=-1)

    squared = jnp.maximum(squared_step(0, width), squared_step(1, height))
    there = (face_index >= 0) & (squared > 0)
    return jax.lax.stop_gradient(jnp.where(there, 0.5 * jnp.log2(jnp.where(there, squared, 1.0)), 0.0))


def unwrap(
    uv: Float[Array, "U 2"],
    uv_faces: Int[Array, "F 3"],
    size: tuple[int, int],
    implementation: Implementation = None,
) -> Fragments:
    """What every texel of a texture shows: a mesh drawn in the space of its texture coordinates.

    uv: (U, 2), as in `texture`. uv_faces: (F, 3), the three coordinates of each face. size: (T, S) of the
    texture, static. The `face_index` counts faces, so `interpolate(attributes, faces, unwrap(...))` with the
    mesh's own faces bakes the attributes of its vertices into the texture, positions and normals as well as
    colours, and is differentiable in them. Where faces overlap in the texture the lowest is shown.
    """
    uv = jnp.asarray(uv, jnp.float32)
    if uv.ndim != 2 or uv.shape[-1] != 2:
        raise ValueError(f"unwrap: uv must be (U, 2), got {uv.shape}")
    zero, one = jnp.zeros(uv.shape[0]), jnp.ones(uv.shape[0])
    flat = jnp.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], zero, one], axis=-1)
    return rasterize(flat, uv_faces, size, implementation=implementation)
