"""Loads the native libraries and registers their functions with XLA, once a process."""

from __future__ import annotations

import ctypes
import functools

import jax

# What both libraries have, and what only the one for the CPU has.
CUDA_FUNCTIONS = (
    "rasterize",
    "surface_forward",
    "surface_backward",
    "interpolate",
    "interpolate_forward",
    "interpolate_backward",
    "neighbors",
    "crossings",
    "blend",
    "blend_forward",
    "blend_backward",
    "draw",
    "draw_forward",
    "draw_backward",
    "normals",
    "normals_forward",
    "normals_backward",
)
_FUNCTIONS = (
    *CUDA_FUNCTIONS,
    "fragments",
    "fragments_backward",
    "soft_blend",
    "soft_blend_backward",
    "soft_render",
    "soft_render_backward",
    "texture",
    "texture_backward",
)


def on_cuda() -> bool:
    """Whether JAX's default device is one of NVIDIA's."""
    return jax.default_backend() == "gpu" and "cuda" in jax.devices()[0].client.platform_version.lower()


def _register(path, functions: tuple[str, ...], platform: str, needs: str) -> str | None:
    """What is wrong with a library, None where nothing is."""
    if not path.is_file():
        return (
            f"{path.name} is not built (it needs {needs}: install it and run "
            "`python -m facefit_kernels.native_build`)"
        )
    try:
        loaded = ctypes.CDLL(str(path))
        for name in functions:
            jax.ffi.register_ffi_target(
                f"facefit_{name}", jax.ffi.pycapsule(getattr(loaded, f"facefit_{name}")), platform=platform
            )
    except (OSError, AttributeError) as error:
        return f"{path.name} does not load ({error}); rebuild it"
    return None


@functools.cache
def _state() -> tuple[bool, str]:
    from facefit_kernels import native_build  # late: `python -m` runs that module itself

    # On a GPU too: what runs on the CPU there is then found.
    wrong = _register(native_build.LIBRARY, _FUNCTIONS, "cpu", "a C++ compiler")
    if on_cuda():
        wrong = _register(native_build.CUDA_LIBRARY, CUDA_FUNCTIONS, "CUDA", "nvcc")
    elif wrong is None and jax.default_backend() != "cpu":
        wrong = f"the native libraries are for CPUs and CUDA, and JAX runs on {jax.default_backend()}"
    return wrong is None, wrong or "loaded"


def load() -> bool:
    """Whether the native library for JAX's default device is there and registered."""
    return _state()[0]


def reason() -> str:
    """What became of the native library, in words for a person."""
    return _state()[1]


def call(name: str, result_shapes, *operands, **attributes):
    """Calls a function of the library; `attributes` are static. A batch made by `vmap` is one call; an
    operand that is not batched is shared.
    """
    return jax.ffi.ffi_call(f"facefit_{name}", result_shapes, vmap_method="expand_dims")(
        *operands, **attributes
    )
