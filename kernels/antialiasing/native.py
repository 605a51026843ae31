"""Antialiasing by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from jaxtyping import Array, Float, Int


def _like(array):
    return jax.ShapeDtypeStruct(array.shape, jnp.float32)


def neighbors(faces: Int[Array, "F 3"]) -> Int[Array, "F 3"]:
    """The face across the edge opposite each corner; see `reference.neighbors`."""
    return call("neighbors", jax.ShapeDtypeStruct(faces.shape, jnp.int32), faces)


@jax.custom_jvp
def _blend(vertices, edges, image):
    return call("blend", _like(image), vertices, edges, image)


def _forward(residuals, operands):
    return (call("blend_forward", _like(residuals[2]), *residuals, *operands),)


def _transpose(residuals, cotangents):
    return call("blend_backward", (_like(residuals[0]), _like(residuals[2])), *residuals, *cotangents)


@_blend.defjvp
def _blend_jvp(primals, tangents):
    (tangent,) = linear_map(_forward, _transpose, primals, (tangents[0], tangents[2]))
    return _blend(*primals), tangent


def antialias(
    image: Float[Array, "H W C"],
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    face_index: Int[Array, "H W"],
    adjacent: Int[Array, "F 3"],
) -> Float[Array, "H W C"]:
    """The image with the pixels on silhouettes blended; see `op.antialias`."""
    edges = call(
        "crossings",
        jax.ShapeDtypeStruct((*face_index.shape, 2, 2), jnp.int32),
        jax.lax.stop_gradient(vertices_clip),
        faces,
        adjacent,
        face_index,
    )
    return _blend(vertices_clip, edges, image)
