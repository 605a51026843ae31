"""The files a user looks at, each written from a fit by one function: meshes, landmarks, overlay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8

from facefit.fit.result import Fit
from facefit.model import albedo, surface_points, vertices
from facefit.render import intrinsics, to_camera

_to_camera = jax.jit(to_camera)


def save_neutral(fit: Fit, folder: Path) -> None:
    """neutral.ply, the head without expression, and landmarks3d.json, the 68 points on it; millimetres, model frame."""
    from facefit.export.ply import write_ply

    points = neutral_vertices(fit)
    write_ply(folder / "neutral.ply", points, np.asarray(fit.model.faces))
    marks = np.asarray(surface_points(points, fit.model.faces, fit.model.landmarks68), np.float64)
    write_json({"points": marks.round(4).tolist(), "units": "mm"}, folder / "landmarks3d.json")


def save_landmarks(landmarks68: Float[np.ndarray, "68 2"], path: Path) -> None:
    """Projected points as JSON, original photo pixels, (0, 0) the centre of the first pixel (as .pts and OpenCV have it)."""
    points = np.asarray(landmarks68, np.float64) - 0.5
    write_json({"points": points.round(3).tolist()}, path)


def neutral_vertices(fit: Fit) -> Float[np.ndarray, "V 3"]:
    """The subject's head without expression, millimetres, model frame."""
    none = np.zeros(fit.model.expression_basis.shape[0], np.float32)
    return np.asarray(vertices(fit.model, fit.identity, none))


def write_json(content, path: Path, indent: int | None = None) -> None:
    """One JSON file; numbers that JSON cannot hold are an error."""
    path.write_text(json.dumps(content, indent=indent, allow_nan=False) + "\n")
