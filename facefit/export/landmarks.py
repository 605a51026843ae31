"""Landmark files: 68 points in space (`landmarks3d.json`) and in a photograph (`NAME.landmarks.json`)."""

from __future__ import annotations

import json
import os

import numpy as np
from jaxtyping import Float

from facefit.export.checks import require_finite
from facefit.model.atomic import write_text


def write_landmarks3d(path: str | os.PathLike, points: Float[np.ndarray, "68 3"]) -> None:
    """Writes {"points": 68 x [x, y, z], "units": "mm"}.

    Args:
        points: on the mesh of `neutral.ply`, in its frame, millimetres.

    Raises:
        ValueError: not (68, 3) finite numbers.
        InputError: the file cannot be written.
    """
    _write(path, _checked(points, 3, 5), {"units": "mm"})


def write_landmarks(path: str | os.PathLike, points: Float[np.ndarray, "68 2"]) -> None:
    """Writes {"points": 68 x [x, y]} where (0, 0) is the centre of the first pixel, as in .pts.

    Args:
        points: pixels of the original photograph in facefit's own convention, first pixel's centre at (0.5,
            0.5).

    Raises:
        ValueError: not (68, 2) finite numbers.
        InputError: the file cannot be written.
    """
    _write(path, _checked(np.asarray(points, np.float64) - 0.5, 2, 4), {})


def _checked(points: np.ndarray, columns: int, digits: int) -> list[list[float]]:
    points = np.asarray(points, np.float64)
    if points.shape != (68, columns):
        raise ValueError(f"points: must be (68, {columns}), not {points.shape}")
    require_finite(points, "points")
    return [[round(value, digits) for value in row] for row in points.tolist()]


def _write(path: str | os.PathLike, points: list[list[float]], more: dict) -> None:
    write_text(path, json.dumps({"points": points} | more, allow_nan=False) + "\n")
