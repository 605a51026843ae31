"""The native libraries: what is compiled, and which operations of it run where."""

import ctypes
import re

import facefit_kernels
import pytest
from facefit_kernels import implementations, library, native_build


def entry_points(source):
    return set(re.findall(r"XLA_FFI_DEFINE_HANDLER_SYMBOL\(\s*facefit_(\w+)", source.read_text()))


def test_the_functions_that_are_registered_are_those_of_the_sources():
    assert entry_points(native_build.SOURCE) == set(library._FUNCTIONS)
    assert entry_points(native_build.CUDA_SOURCE) == set(library.CUDA_FUNCTIONS)
    assert set(library.CUDA_FUNCTIONS) <= set(library._FUNCTIONS)


@pytest.mark.slow
def test_the_cuda_library_compiles_and_has_every_function(tmp_path, monkeypatch):
    if native_build.cuda_compiler() is None:
        pytest.skip("there is no nvcc here")
    monkeypatch.setenv("FACEFIT_CUDA_ARCHITECTURES", "80")
    output = tmp_path / "cuda.so"
    message = native_build.build_cuda(output)
    assert output.is_file(), message
    compiled = ctypes.CDLL(str(output))  # loads without a GPU or its driver
    assert all(hasattr(compiled, f"facefit_{name}") for name in library.CUDA_FUNCTIONS)


def test_without_nvcc_nothing_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(native_build, "cuda_compiler", lambda: None)
    assert "no nvcc found" in native_build.build_cuda(tmp_path / "cuda.so")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def on_cuda(monkeypatch):
    """As on a machine with a GPU whose library is there."""
    monkeypatch.setattr(library, "on_cuda", lambda: True)
    monkeypatch.setattr(library, "load", lambda: True)
    implementations.available.cache_clear()
    yield
    implementations.available.cache_clear()


def test_on_cuda_an_operation_that_the_library_lacks_runs_in_plain_jax_unless_asked_otherwise(on_cuda):
    assert facefit_kernels.available() == ("native", "reference")
    assert facefit_kernels.available("draw") == ("native", "reference")
    assert facefit_kernels.available("texture") == ("reference",)
    assert implementations.resolve(None, "texture") == "reference"
    assert implementations.resolve("native", "draw") == "native"
    with pytest.raises(ValueError, match="the CUDA library has no texture"):
        implementations.resolve("native", "texture")
