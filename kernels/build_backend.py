"""The build backend that pyproject.toml names: setuptools, with the native kernels compiled first where they
can be.
"""

from __future__ import annotations

import contextlib
import sys

import native_build
from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  (hooks that pip calls)
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

_LIBRARIES = (native_build.LIBRARY, native_build.CUDA_LIBRARY)


def _requirements(base: list[str]) -> list[str]:
    # jaxlib brings the FFI headers. It is a large download that the install makes anyway, so pip has it in
    # its cache the second time; where nothing can be compiled it is not asked for.
    return [*base, "jaxlib"] if native_build.compiler() else base


def get_requires_for_build_wheel(config_settings=None):
    return _requirements(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings=None):
    return _requirements(build_meta.get_requires_for_build_editable(config_settings))


def _compile() -> bool:
    for library, build in zip(_LIBRARIES, (native_build.build, native_build.build_cuda), strict=True):
        library.unlink(missing_ok=True)
        print(build(), file=sys.stderr)
    return any(library.exists() for library in _LIBRARIES)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    settings = dict(config_settings or {})
    if _compile():
        settings["--build-option"] = ["--plat-name", native_build.platform_tag()]
    return build_meta.build_wheel(wheel_directory, settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _compile()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


@contextlib.contextmanager
def _libraries_hidden():
    present = [library for library in _LIBRARIES if library.exists()]
    for library in present:
        library.rename(library.with_suffix(".aside"))
    try:
        yield
    finally:
        for library in present:
            library.with_suffix(".aside").rename(library)


def build_sdist(sdist_directory, config_settings=None):
    # A library is of one platform: a source archive must not carry it.
    with _libraries_hidden():
        return build_meta.build_sdist(sdist_directory, config_settings)
