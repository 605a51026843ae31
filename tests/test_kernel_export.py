"""The operations lower for every platform: `jax.export` of the value and the gradient of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import interpolate, mip_level, rasterize, soft_blend, soft_render, texture, unwrap
from jax import export

V, F, SIZE = 12, 20, (9, 11)
FLOATS = {"clip": (V, 4), "colors": (V, 3), "uv": (V, 2), "picture": (8, 8, 3)}


def many_fragments(faces, clip, colors, uv, picture):
    drawn = rasterize(clip, faces, SIZE, 3, 0.7, "reference")
    values = interpolate(colors, faces, drawn, "reference")
    image, coverage = soft_blend(values, drawn, jnp.zeros(3), 0.05, 1e-4, "reference")
    return jnp.sum(image**2) + jnp.sum(coverage)


def in_one_call(faces, clip, colors, uv, picture):
    return jnp.sum(
        soft_render(clip, faces, colors, SIZE, jnp.zeros(3), 0.05, 1e-4, 3, None, "reference")[0] ** 2
    )


def textured(faces, clip, colors, uv, picture):
    drawn = rasterize(clip, faces, SIZE, implementation="reference")
    level = mip_level(clip, faces, drawn, uv, faces, (8, 8))
    places = interpolate(uv, faces, drawn, "reference")
    return jnp.sum(texture(picture, places, level, False, "reference") ** 2)


def baked(faces, clip, colors, uv, picture):
    return jnp.sum(interpolate(colors, faces, unwrap(uv, faces, SIZE, "reference"), "reference") ** 2)


@pytest.mark.parametrize("function", [many_fragments, in_one_call, textured, baked])
def test_value_and_gradient_lower_for_cpu_cuda_and_tpu(function):
    arguments = [jax.ShapeDtypeStruct((F, 3), jnp.int32)]
    arguments += [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in FLOATS.values()]
    step = jax.jit(jax.value_and_grad(function, argnums=(1, 2, 3, 4)))
    lowered = export.export(step, platforms=("cpu", "cuda", "tpu"))(*arguments)
    assert lowered.platforms == ("cpu", "cuda", "tpu")
    assert "@facefit_" not in lowered.mlir_module()  # no call of a library that another platform would lack


@pytest.mark.parametrize("function", [in_one_call, textured])
def test_what_is_exported_gives_what_the_function_gives(function):
    rng = np.random.default_rng(0)
    values = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in FLOATS.values()]
    values[0][:, 3] = 1.5
    values[2] = np.abs(values[2])
    faces = rng.integers(0, V, (F, 3)).astype(np.int32)
    shapes = (jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (faces, *values))
    exported = export.export(jax.jit(function))(*shapes)
    np.testing.assert_allclose(exported.call(faces, *values), jax.jit(function)(faces, *values), rtol=1e-5)
