"""Vertex normals by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from jaxtyping import Array, Float, Int


def _like(vertices):
    return jax.ShapeDtypeStruct(vertices.shape, jnp.float32)


@jax.custom_jvp
def _normals(vertices, faces):
    return call("normals", (_like(vertices), _like(vertices)), vertices, faces)


def _forward(residuals, operands):
    return (call("normals_forward", _like(residuals[0]), *residuals, *operands),)


def _transpose(residuals, cotangents):
    return (call("normals_backward", _like(residuals[0]), *residuals, *cotangents),)


@_normals.defjvp
def _normals_jvp(primals, tangents):
    unit, sums = _normals(*primals)
    (tangent,) = linear_map(_forward, _transpose, (*primals, sums), (tangents[0],))
    return (unit, sums), (tangent, jnp.zeros_like(sums))


def vertex_normals(vertices: Float[Array, "V 3"], faces: Int[Array, "F 3"]) -> Float[Array, "V 3"]:
    """Unit normals of the vertices; see `op.vertex_normals`."""
    return _normals(vertices, faces)[0]
