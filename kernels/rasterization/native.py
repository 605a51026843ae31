"""Rasterization by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.fragments import Fragments
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from facefit_kernels.rasterization import reference
from jaxtyping import Array, Float, Int

_FLOAT = jnp.float32


@jax.custom_jvp
def _surface_of(vertices, faces, face_index, barycentric, depth):
    # The values were found together with the faces; this attaches the derivative that makes them a function
    # of the vertices.
    return barycentric, depth


def _forward(residuals, operands):
    vertices, faces, face_index = residuals
    shape = face_index.shape
    return call(
        "surface_forward",
        (jax.ShapeDtypeStruct((*shape, 3), _FLOAT), jax.ShapeDtypeStruct(shape, _FLOAT)),
        vertices,
        faces,
        face_index,
        operands[0],
    )


def _transpose(residuals, cotangents):
    vertices, faces, face_index = residuals
    return (
        call(
            "surface_backward",
            jax.ShapeDtypeStruct(vertices.shape, _FLOAT),
            vertices,
            faces,
            face_index,
            *cotangents,
        ),
    )


@_surface_of.defjvp
def _surface_jvp(primals, tangents):
    vertices, faces, face_index, barycentric, depth = primals
    return (barycentric, depth), tuple(
        linear_map(_forward, _transpose, (vertices, faces, face_index), (tangents[0],))
    )


def rasterize(
    vertices_clip: Float[Array, "V 4"], faces: Int[Array, "F 3"], size: tuple[int, int]
) -> Fragments:
    """The nearest fragment of every pixel; see `op.rasterize`."""
    fixed = jax.lax.stop_gradient(vertices_clip)
    face_index, barycentric, depth = call(
        "rasterize",
        (
            jax.ShapeDtypeStruct(size, jnp.int32),
            jax.ShapeDtypeStruct((*size, 3), _FLOAT),
            jax.ShapeDtypeStruct(size, _FLOAT),
        ),
        fixed,
        faces,
    )
    barycentric, depth = _surface_of(vertices_clip, faces, face_index, barycentric, depth)
    # Plain JAX, since few want it: inside `jit` an unused one costs nothing.
    distance = reference.signed_distance(vertices_clip, faces, face_index)
    return Fragments(
        face_index=face_index[..., None],
        barycentric=barycentric[..., None, :],
        depth=depth[..., None],
        signed_distance=distance[..., None],
    )
