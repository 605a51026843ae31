"""What `summary.json` says about a fit: every photograph's outcome and camera, times and warnings, as plain
data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np

from facefit.fit.result import Fit, FittedView

MAX_NAME_BYTES = 200  # file systems allow 255, and an ending and a temporary name are added

CAMERA_CONVENTION = (
    "OpenCV: pixel = K (rotation @ point + translation_mm), K = [[focal_px, 0, center[0]], "
    "[0, focal_px, center[1]], [0, 0, 1]], point in millimetres in the frame of neutral.ply; "
    "camera x right, y down, z forward; pixels of the upright photograph (EXIF orientation applied), "
    "(0, 0) is the centre of the first one"
)


def file_names(files: Sequence[str]) -> list[str]:
    """The NAME of each photograph's outputs: its file name without the ending, made unique.

    Photographs of the same name (in different folders, or of different endings) get _2, _3, ... in the order
    of the call. Upper and lower case count as the same, as they do on the file systems of macOS and Windows.
    """
    taken: set[str] = set()
    names = []
    for file in files:
        stem = Path(file).stem or "photograph"
        while len(os.fsencode(stem)) > MAX_NAME_BYTES:
            stem = stem[:-1]
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def camera(view: FittedView) -> dict:
    """A view's camera as plain numbers in OpenCV's conventions (see `CAMERA_CONVENTION`)."""
    rotation, _ = cv2.Rodrigues(np.asarray(view.rotation, np.float64))
    rotation = rotation @ np.diag([1.0, -1.0, -1.0])  # the half turn that `to_camera` makes first
    return {
        "focal_px": float(view.focal_px),
        "center": [float(value) - 0.5 for value in view.center],
        "rotation": rotation.tolist(),
        "translation_mm": [float(value) for value in view.translation],
        "convention": CAMERA_CONVENTION,
    }


def summary(fit: Fit, fingerprint: str, failures: dict[str, str]) -> dict:
    """The content of `summary.json`.

    Args:
        fit: any fit; one made by hand, without entries in its report, gets an entry for every view.
        fingerprint: of the model.
        failures: outputs that could not be written, with the reason.
    """
    report = dict(fit.report)
    entries = [
        dict(entry) for entry in report.pop("photos", None) or [{"file": view.file} for view in fit.views]
    ]
    fitted = [entry for entry in entries if not str(entry.get("outcome", "")).startswith("failed")]
    names = file_names([view.file for view in fit.views])
    for entry, view, name in zip(fitted, fit.views, names, strict=True):
        entry |= {
            "outcome": view.outcome,
            "landmark_rmse_px": float(view.landmark_rmse_px),
            "landmark_rmse_percent": float(view.landmark_rmse_percent),
            "energies": dict(view.energies),
            "outputs": name,
            "size": [int(view.size[1]), int(view.size[0])],
            "camera": camera(view),
        }
    warnings = [str(warning) for warning in report.pop("warnings", [])]
    warnings += [f"{name}: {reason}" for name, reason in failures.items()]
    content = {
        "facefit": _version(),
        "model": {
            "name": fit.model.name,
            "source": report.pop("model", fit.model.name),
            "fingerprint": fingerprint,
            "licence": fit.model.licence,
        },
        "preset": report.pop("preset", ""),
        "photos": entries,
        "landmark_rmse_px": report.pop("landmark_rmse_px", None),
        "seconds": report.pop("seconds", {}),
        "warnings": warnings,
        **report,
    }
    return plain(content)


def _version() -> str:
    try:
        return metadata.version("facefit")
    except metadata.PackageNotFoundError:  # a source tree on the path, not installed
        return ""


def plain(value):
    """The same data in what JSON knows: numbers of NumPy and JAX as Python's, infinities and NaN as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)
