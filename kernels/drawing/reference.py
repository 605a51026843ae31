"""Drawing in plain JAX: the single operations' references put together, on any device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.antialiasing import reference as antialiasing
from facefit_kernels.fragments import Fragments
from facefit_kernels.interpolation import reference as interpolation
from facefit_kernels.rasterization import reference as rasterization
from jaxtyping import Array, Float, Int


def draw(
    vertices_clip: Float[Array, "V 4"],
    attributes: Float[Array, "V C"],
    faces: Int[Array, "F 3"],
    adjacent: Int[Array, "F 3"],
    size: tuple[int, int],
    samples: int,
    cull: bool = False,
) -> tuple[Float[Array, "H W C"], Float[Array, "H W"]]:
    """The picture and its coverage; see `op.draw`."""
    height, width = size
    fine = (samples * height, samples * width)
    fixed = jax.lax.stop_gradient(vertices_clip)
    face_index = rasterization.visible_faces(fixed, faces, fine, cull=cull)[..., 0]
    barycentric, depth = rasterization.surface(vertices_clip, faces, face_index)
    fragments = Fragments(
        face_index[..., None], barycentric[..., None, :], depth[..., None], jnp.zeros_like(depth)[..., None]
    )
    colors = interpolation.interpolate(attributes, faces, fragments)[:, :, 0]
    hard = jnp.concatenate([colors, (face_index >= 0).astype(colors.dtype)[..., None]], axis=-1)
    picture = antialiasing.antialias(hard, vertices_clip, faces, face_index, adjacent)
    picture = picture.reshape(height, samples, width, samples, picture.shape[-1]).mean((1, 3))
    return picture[..., :-1], picture[..., -1]
