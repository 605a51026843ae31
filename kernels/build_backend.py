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


def _requirements(base: list[str]) -> list[str]:
    # jaxlib brings the FFI headers. It is a large download that the install makes anyway, so pip has it in
    # its cache the second time; where nothing can be compiled it is not asked for.
    return [*base, "jaxlib"] if native_build.compiler() else base


def get_requires_for_build_wheel(config_settings=None):
    return _requirements(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings=None):
    return _requirements(build_meta.get_requires_for_build_editable(config_settings))


def _compile() -> bool:
    native_build.LIBRARY.unlink(missing_ok=True)
    print(native_build.build(), file=sys.stderr)
    return native_build.LIBRARY.exists()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    settings = dict(config_settings or {})
    if _compile():
        settings["--build-option"] = ["--plat-name", native_build.platform_tag()]
    return build_meta.build_wheel(wheel_directory, settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _compile()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


@contextlib.contextmanager
def _library_hidden():
    aside = native_build.LIBRARY.with_suffix(".aside")
    present = native_build.LIBRARY.exists()
    if present:
        native_build.LIBRARY.rename(aside)
    try:
        yield
    finally:
        if present:
            aside.rename(native_build.LIBRARY)


def build_sdist(sdist_directory, config_settings=None):
    # A library is of one platform: a source archive must not carry it.
    with _library_hidden():
        return build_meta.build_sdist(sdist_directory, config_settings)
