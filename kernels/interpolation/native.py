"""Interpolation by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.fragments import Fragments
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from jaxtyping import Array, Float, Int


def _result(attributes, face_index):
    return jax.ShapeDtypeStruct((*face_index.shape, attributes.shape[-1]), jnp.float32)


@jax.custom_jvp
def _interpolate(attributes, faces, face_index, barycentric):
    return call("interpolate", _result(attributes, face_index), attributes, faces, face_index, barycentric)


def _forward(residuals, operands):
    attributes, _, face_index, _ = residuals
    return (call("interpolate_forward", _result(attributes, face_index), *residuals, *operands),)


def _transpose(residuals, cotangents):
    attributes, _, _, barycentric = residuals
    return call(
        "interpolate_backward",
        (
            jax.ShapeDtypeStruct(attributes.shape, jnp.float32),
            jax.ShapeDtypeStruct(barycentric.shape, jnp.float32),
        ),
        *residuals,
        *cotangents,
    )


@_interpolate.defjvp
def _interpolate_jvp(primals, tangents):
    (tangent,) = linear_map(_forward, _transpose, primals, (tangents[0], tangents[3]))
    return _interpolate(*primals), tangent


def interpolate(
    attributes: Float[Array, "V C"], faces: Int[Array, "F 3"], fragments: Fragments
) -> Float[Array, "H W K C"]:
    """Attributes at every fragment; see `op.interpolate`."""
    return _interpolate(attributes, faces, fragments.face_index, fragments.barycentric)
