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


@jax.custom_jvp
def _fragment_values_of(vertices, faces, face_index, barycentric, depth, distance):
    return barycentric, depth, distance


def _fragments_forward(residuals, operands):
    # Forward mode in plain JAX: right, and too rarely asked for to be written twice.
    vertices, faces, face_index = residuals
    return jax.jvp(lambda v: reference.fragment_surface(v, faces, face_index), (vertices,), operands)[1]


def _fragments_transpose(residuals, cotangents):
    shape = jax.ShapeDtypeStruct(residuals[0].shape, _FLOAT)
    return (call("fragments_backward", shape, *residuals, *cotangents),)


@_fragment_values_of.defjvp
def _fragment_values_jvp(primals, tangents):
    return primals[3:], tuple(
        linear_map(_fragments_forward, _fragments_transpose, primals[:3], (tangents[0],))
    )


def rasterize(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    size: tuple[int, int],
    fragments: int = 1,
    blur: float = 0.0,
    cull: bool = False,
) -> Fragments:
    """The nearest fragments of every pixel; see `op.rasterize`."""
    fixed = jax.lax.stop_gradient(vertices_clip)
    if fragments > 1 or blur > 0:
        shape = (*size, fragments)
        face_index, *values = call(
            "fragments",
            (
                jax.ShapeDtypeStruct(shape, jnp.int32),
                jax.ShapeDtypeStruct((*shape, 3), _FLOAT),
                jax.ShapeDtypeStruct(shape, _FLOAT),
                jax.ShapeDtypeStruct(shape, _FLOAT),
            ),
            fixed,
            faces,
            jnp.asarray(blur, _FLOAT),
            cull=cull,
        )
        return Fragments(face_index, *_fragment_values_of(vertices_clip, faces, face_index, *values))
    face_index, barycentric, depth = call(
        "rasterize",
        (
            jax.ShapeDtypeStruct(size, jnp.int32),
            jax.ShapeDtypeStruct((*size, 3), _FLOAT),
            jax.ShapeDtypeStruct(size, _FLOAT),
        ),
        fixed,
        faces,
        cull=cull,
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
