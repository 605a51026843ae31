"""Soft blending by the native library: the calls and how they are differentiated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.fragments import Fragments
from facefit_kernels.interpolation import reference as interpolation
from facefit_kernels.library import call
from facefit_kernels.linear import linear_map
from facefit_kernels.rasterization import reference as rasterization
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


@jax.custom_jvp
def _rendered_of(vertices, faces, attributes, background, softness, face_index, image, coverage):
    # The values were found together with the faces; this attaches their derivative.
    return image, coverage


def _render_forward(residuals, operands):
    vertices, faces, attributes, background, softness, face_index, _ = residuals

    def values(vertices, attributes, background):
        barycentric, depth, distance = rasterization.fragment_surface(vertices, faces, face_index)
        drawn = Fragments(face_index, barycentric, depth, distance)
        colors = interpolation.interpolate(attributes, faces, drawn)
        return reference.soft_blend(colors, face_index, depth, distance, background, softness)

    return jax.jvp(values, (vertices, attributes, background), operands)[1]


def _render_transpose(residuals, cotangents):
    vertices, _, attributes, background, *_ = residuals
    results = (_like(vertices), _like(attributes), _like(background))
    return call("soft_render_backward", results, *residuals, *cotangents)


@_rendered_of.defjvp
def _rendered_jvp(primals, tangents):
    operands = (tangents[0], tangents[2], tangents[3])
    return primals[6:], tuple(linear_map(_render_forward, _render_transpose, primals[:7], operands))


def soft_render(vertices, faces, attributes, background, softness, size, fragments, blur, cull=False):
    """Rasterization, interpolation and blending in one call; see `op.soft_render`."""
    fixed = jax.lax.stop_gradient((vertices, faces, attributes, background, softness))
    face_index, image, coverage = call(
        "soft_render",
        (
            jax.ShapeDtypeStruct((*size, fragments), jnp.int32),
            _like(background),
            jax.ShapeDtypeStruct(size, jnp.float32),
        ),
        *fixed,
        jnp.asarray(blur, jnp.float32),
        cull=cull,
    )
    return _rendered_of(vertices, faces, attributes, background, softness, face_index, image, coverage)
