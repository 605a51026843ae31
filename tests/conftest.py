"""What all tests share: the compilation cache between runs, and the implementations of the kernels."""

import os
from pathlib import Path

import pytest


def pytest_configure(config):
    # Compiling takes most of the suite's time. Set before JAX is imported; a caller's own setting wins.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Plain JAX compiles for seconds where C++ does not at all: what is asked of each implementation alone is
    slow for the reference, if there is another. That both give the same is always asked.
    """
    import facefit_kernels

    for item in items:
        if getattr(item, "callspec", None) and item.callspec.params.get("implementation") == "reference":
            if "native" in facefit_kernels.available(getattr(item.module, "OPERATION", None)):
                item.add_marker(pytest.mark.slow)


_ROOM = 2 << 30  # bytes of a process, beyond which it forgets what it has compiled


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Files share no programs, and those of all would fill the memory of a small machine."""
    yield
    used = Path("/proc/self/statm")  # Linux alone has it
    if used.is_file() and int(used.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > _ROOM:
        import jax

        jax.clear_caches()


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
