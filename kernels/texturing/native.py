"""Texture sampling by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from facefit_kernels.texturing import reference


def _like(array):
    return jax.ShapeDtypeStruct(array.shape, jnp.float32)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _texture(sizes, wrap, pyramid, coordinates, level):
    result = jax.ShapeDtypeStruct((coordinates.shape[0], pyramid.shape[1]), jnp.float32)
    return call("texture", result, pyramid, _table(sizes), coordinates, level, jnp.int32(wrap))


def _table(sizes):
    counts = [height * width for height, width in sizes]
    return jnp.asarray([(sum(counts[:k]), *size) for k, size in enumerate(sizes)], jnp.int32)


@_texture.defjvp
def _texture_jvp(sizes, wrap, primals, tangents):
    def forward(residuals, operands):
        # Forward mode in plain JAX: right, and too rarely asked for to be written twice.
        return (jax.jvp(lambda *a: reference.texture(a[0], sizes, *a[1:], wrap), residuals, operands)[1],)

    def transpose(residuals, cotangents):
        pyramid, coordinates, level = residuals
        return call(
            "texture_backward",
            (_like(pyramid), _like(coordinates), _like(level)),
            pyramid,
            _table(sizes),
            coordinates,
            level,
            jnp.int32(wrap),
            *cotangents,
        )

    (tangent,) = linear_map(forward, transpose, primals, tangents)
    return _texture(sizes, wrap, *primals), tangent


def texture(pyramid, sizes, coordinates, level, wrap):
    """Samples of a pyramid; see `op.texture` and `reference.texture`."""
    if level is None:
        level = jnp.asarray(np.zeros(coordinates.shape[0], np.float32))
    return _texture(tuple(sizes), wrap, pyramid, coordinates, level)
