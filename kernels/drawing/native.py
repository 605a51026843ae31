"""Drawing by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from jaxtyping import Array, Float, Int


def _float(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _integer(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def _draw(vertices, attributes, faces, adjacent, size, samples, cull):
    height, width = samples * size[0], samples * size[1]
    channels = attributes.shape[-1]
    shapes = (
        _integer(height, width),
        _integer(height, width, 2, 2),
        _float(height, width, channels + 1),
        _float(*size, channels),
        _float(*size),
    )
    return call("draw", shapes, vertices, faces, adjacent, attributes, cull=cull)


def _forward(size, residuals, operands):
    shapes = (_float(*size, residuals[2].shape[-1]), _float(*size))
    return call("draw_forward", shapes, *residuals, *operands)


def _transpose(residuals, cotangents):
    vertices, _, attributes = residuals[:3]
    shapes = (_float(*vertices.shape), _float(*attributes.shape))
    return call("draw_backward", shapes, *residuals, *cotangents)


@functools.cache
def _forward_of(size):
    # One function object a size, since a primitive's parameters are compared.
    return functools.partial(_forward, size)


@_draw.defjvp
def _draw_jvp(size, samples, cull, primals, tangents):
    vertices, attributes, faces, _ = primals
    results = face_index, edges, hard, _, _ = _draw(*primals, size, samples, cull)
    residuals = (vertices, faces, attributes, face_index, edges, hard)
    moved = linear_map(_forward_of(size), _transpose, residuals, tangents[:2])
    none = jnp.zeros(face_index.shape, jax.dtypes.float0), jnp.zeros(edges.shape, jax.dtypes.float0)
    return results, (*none, jnp.zeros_like(hard), *moved)


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
    _, _, _, image, coverage = _draw(vertices_clip, attributes, faces, adjacent, size, samples, cull)
    return image, coverage
