"""facefit: photographs become a 3D face.

    import facefit
    fit = facefit.fit(["a.jpg", "b.jpg"])      # photographs of one person
    fit.save("out/")

The names below are loaded when they are first used, so that `import facefit` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facefit.errors import FacefitError, InputError, PhotoError
    from facefit.fit.result import Fit, FittedView
    from facefit.model import FaceModel
    from facefit.photo import Photograph, read_photograph

_HOMES = {
    "FaceModel": "facefit.model",
    "FacefitError": "facefit.errors",
    "Fit": "facefit.fit.result",
    "FittedView": "facefit.fit.result",
    "InputError": "facefit.errors",
    "PhotoError": "facefit.errors",
    "Photograph": "facefit.photo",
    "read_photograph": "facefit.photo",
}

__all__ = [
    "FaceModel",
    "FacefitError",
    "Fit",
    "FittedView",
    "InputError",
    "PhotoError",
    "Photograph",
    "fit",
    "read_photograph",
]


def __getattr__(name: str):
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("facefit")
        except metadata.PackageNotFoundError:  # a source tree on the path, not installed
            return "unknown (not installed)"
    if name == "fit":
        return importlib.import_module("facefit.fit")  # a package that can be called: see there
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'facefit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
