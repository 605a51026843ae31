"""Loads the native library and registers its functions with XLA, once a process."""

from __future__ import annotations

import ctypes
import functools

import jax

_FUNCTIONS = (
    "rasterize",
    "surface_forward",
    "surface_backward",
    "fragments",
    "fragments_backward",
    "interpolate",
    "interpolate_forward",
    "interpolate_backward",
    "neighbors",
    "crossings",
    "blend",
    "blend_forward",
    "blend_backward",
    "soft_blend",
    "soft_blend_backward",
    "soft_render",
    "soft_render_backward",
    "texture",
    "texture_backward",
    "draw",
    "draw_forward",
    "draw_backward",
    "normals",
    "normals_forward",
    "normals_backward",
)


@functools.cache
def _state() -> tuple[bool, str]:
    from facefit_kernels import native_build  # late: `python -m` runs that module itself

    if not native_build.LIBRARY.is_file():
        return False, (
            f"{native_build.LIBRARY.name} is not built (it needs a C++ compiler: install one and run "
            "`python -m facefit_kernels.native_build`)"
        )
    try:
        loaded = ctypes.CDLL(str(native_build.LIBRARY))
        for name in _FUNCTIONS:
            jax.ffi.register_ffi_target(
                f"facefit_{name}", jax.ffi.pycapsule(getattr(loaded, f"facefit_{name}")), platform="cpu"
            )
    except (OSError, AttributeError) as error:
        return False, f"{native_build.LIBRARY.name} does not load ({error}); rebuild it"
    if jax.default_backend() != "cpu":
        return True, f"the native library is for the CPU and JAX runs on {jax.default_backend()}"
    return True, "loaded"


def load() -> bool:
    """Whether the native library is there and registered."""
    return _state()[0]


def reason() -> str:
    """What became of the native library, in words for a person."""
    return _state()[1]


def call(name: str, result_shapes, *operands):
    """Calls a function of the library. A batch made by `vmap` is one call; an operand that is not batched is
    shared.
    """
    return jax.ffi.ffi_call(f"facefit_{name}", result_shapes, vmap_method="expand_dims")(*operands)
