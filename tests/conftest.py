"""What all tests share: the compilation cache between runs, and the implementations of the kernels."""

import os

import pytest


def pytest_configure(config):
    # Compiling takes most of the suite's time. Set before JAX is imported; a caller's own setting wins.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture(params=["native", "reference"])
def implementation(request):
    """The name of each implementation of the kernels, one after the other: of a module's OPERATION where it
    names one.
    """
    _need(request.param, request)
    return request.param


@pytest.fixture
def both_implementations(request):
    """Skips where there is only the reference to compare with itself."""
    _need("native", request)


def _need(implementation, request):
    import facefit_kernels
    from facefit_kernels import library

    operation = getattr(request.module, "OPERATION", None)
    if implementation not in facefit_kernels.available(operation):
        pytest.skip(f"no native kernel here for {operation or 'any operation'}: {library.reason()}")
