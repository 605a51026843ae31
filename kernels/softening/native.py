"""Soft blending by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from facefit_kernels.softening import reference


def _like(array):
    return jax.ShapeDtypeStruct(array.shape, jnp.float32)


@jax.custom_jvp
def soft_blend(values, face_index, depth, signed_distance, background, softness):
    """The blended image and its coverage; see `op.soft_blend`. softness: sigma and gamma."""
    return tuple(
        call(
            "soft_blend",
            (_like(background), jax.ShapeDtypeStruct(background.shape[:2], jnp.float32)),
            values,
            face_index,
            depth,
            signed_distance,
            background,
            softness,
        )
    )


def _forward(residuals, operands):
    # Forward mode in plain JAX: right, and too rarely asked for to be written twice.
    values, face_index, depth, distance, background, softness, _ = residuals
    return jax.jvp(
        lambda v, z, d, b: reference.soft_blend(v, face_index, z, d, b, softness),
        (values, depth, distance, background),
        operands,
    )[1]


def _transpose(residuals, cotangents):
    values, _, depth, distance, background, _, _ = residuals
    return call(
        "soft_blend_backward",
        (_like(values), _like(depth), _like(distance), _like(background)),
        *residuals,
        *cotangents,
    )


@soft_blend.defjvp
def _soft_blend_jvp(primals, tangents):
    image, coverage = soft_blend(*primals)
    moved = linear_map(_forward, _transpose, (*primals, image), (tangents[0], *tangents[2:5]))
    return (image, coverage), tuple(moved)
