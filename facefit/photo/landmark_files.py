"""Read landmarks that a user or a data set supplies: 68 iBUG points or 468 Face Mesh points, as .pts, .npy,
.json, or the .mat files of 300W-LP and AFLW2000-3D.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from pathlib import Path

import numpy as np

from facefit.errors import InputError

MAX_BYTES = 1_000_000
_FORMATS = (
    "Give 68 iBUG points or 468 Face Mesh points as .pts, .npy (N, 2), "
    '.json ([[x, y], ...] or {"points": ...}) or .mat (pt3d_68 or pt2d).'
)
ENDINGS = (".pts", ".npy", ".json", ".mat")
_MAT_NAMES = ("pt3d_68", "pt2d")  # of AFLW2000-3D (whose pt2d is another scheme) and of 300W-LP


def read_landmarks(path: str | Path) -> np.ndarray:
    """The points of a landmark file, (68, 2), (468, 2) or (468, 3), float32, in photo pixels, first pixel's
    centre at (.5, .5).

    In the file the first pixel's centre is (0, 0), as .pts files and OpenCV have it, or (1, 1) in .mat files;
    x is to the right, y down.

    Raises InputError where the file cannot be read, is of another kind, or does not hold 68 or 468 finite
    points.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: too large for a landmark file ({path.stat().st_size} bytes). {_FORMATS}"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such landmark file. Check the path.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the landmark file cannot be read ({error}).") from None
    readers = dict(zip(ENDINGS, (_read_pts, _read_npy, _read_json, _read_mat), strict=True))
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: landmark files end in {', '.join(ENDINGS)}. {_FORMATS}")
    try:
        points = np.asarray(reader(data), dtype=np.float64)
    except (ValueError, TypeError, KeyError, EOFError, RecursionError) as error:
        raise InputError(f"{path}: not a readable landmark file ({error}). {_FORMATS}") from None
    if points.ndim != 2 or points.shape not in ((68, 2), (68, 3), (468, 2), (468, 3)):
        raise InputError(f"{path}: holds an array of shape {points.shape}. {_FORMATS}")
    if not np.isfinite(points).all():
        raise InputError(f"{path}: some points are not finite numbers. {_FORMATS}")
    if len(points) == 68:
        points = points[:, :2]
    points[:, :2] += 0.5
    return points.astype(np.float32)


def check_inside(path: str | Path, points: np.ndarray, size: tuple[int, int]) -> None:
    """Refuses points that cannot belong to a photograph of `size` = (width, height): most of them outside, or
    all in one place.
    """
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= size)).all(1).mean()
    if inside < 0.5:
        raise InputError(
            f"{path}: most of its points lie outside the photograph ({size[0]} x {size[1]} pixels). "
            "Coordinates are pixels of the upright photograph, 0,0 the centre of the first one."
        )
    if np.ptp(points[:, :2], axis=0).min() < 4:
        raise InputError(
            f"{path}: its points span less than four pixels. Coordinates are pixels, not fractions."
        )


def _read_pts(data: bytes) -> list:
    """iBUG's format: `version: 1`, `n_points: N`, then one `x y` a line between braces."""
    text = data.decode("utf-8-sig")
    body = re.search(r"\{(.*?)\}", text, re.DOTALL)
    if body is None:
        raise ValueError("no { } around the points")
    rows = [
        [float(v) for v in line.replace(",", " ").split()]
        for line in body.group(1).splitlines()
        if line.strip()
    ]
    count = re.search(r"n_points\s*:\s*(\d+)", text)
    if count and int(count.group(1)) != len(rows):
        raise ValueError(f"n_points says {count.group(1)}, but there are {len(rows)}")
    if len({len(row) for row in rows}) != 1:
        raise ValueError("the lines differ in length")
    return rows


def _read_npy(data: bytes) -> np.ndarray:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError("not an array of numbers")
    return array


def _read_json(data: bytes) -> list:
    content = json.loads(data.decode("utf-8-sig"))
    return content["points"] if isinstance(content, dict) else content


def _read_mat(data: bytes) -> np.ndarray:
    """MATLAB's files hold points as columns; the shape is looked at before anything is unpacked."""
    from scipy import io as scipy_io

    try:
        shapes = {name: shape for name, shape, _ in scipy_io.whosmat(io.BytesIO(data))}
        for name in _MAT_NAMES:
            if shapes.get(name) in ((2, 68), (3, 68)):
                columns = scipy_io.loadmat(io.BytesIO(data), variable_names=[name])[name]
                return np.asarray(columns[:2], np.float64).T - 1.0
    except (NotImplementedError, OSError, IndexError, zlib.error) as error:
        raise ValueError(error) from None
    raise ValueError(f"none of {', '.join(_MAT_NAMES)} holds 68 points")
