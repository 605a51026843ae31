"""dlib's 68 iBUG points, where the package `face-recognition-models` is installed; used only where they agree
with Face Mesh.
"""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.photo import cropping, face_mesh

_FILE = "shape_predictor_68_face_landmarks.dat"
_SIZE = 450  # pixels across the upright crop the predictor works in
_MARGIN = 1.8  # side of the crop over the face's size
# dlib's predictor was trained inside the boxes of dlib's detector: where those lie in the crop, measured on
# 123 detections.
_BOX_SIDE, _BOX_DOWN = 0.91, 0.01  # of the face's size
# The predictor jumps with its box; the median of these boxes (shift right, shift down, size) is steadier than
# one.
_BOXES = [(0, 0, 1), (0.03, 0, 1), (-0.03, 0, 1), (0, 0.03, 1), (0, -0.03, 1), (0, 0, 0.94), (0, 0, 1.06)]
# Mean distance from Face Mesh, in face sizes, beyond which dlib is taken to have failed. On the kit it keeps
# 88 % of the photographs, with an NME of 3.0 %; what it drops (mostly faces turned by more than 40 degrees)
# has 12 %.
_AGREEMENT = 0.035
# Face Mesh points near the iBUG points 17 to 67, good to about 2 % of a face: enough to tell success from
# failure.
_NEAR_INNER = [
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160,
    158, 133, 153, 144, 362, 385, 387, 263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 405, 314, 17,
    84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
]  # fmt: skip


@functools.cache
def model_file(name: str = _FILE) -> Path | None:
    """Where a file of the package lies, the predictor's if none is named, or None. The package is never
    imported: it needs the removed `pkg_resources`.
    """
    try:
        files = metadata.files("face-recognition-models") or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(file.locate()) for file in files if file.name == name]
    return next((path for path in paths if path.is_file()), None)


@functools.cache
def _predictor():
    import dlib  # here, because neither it nor its 100 MB model are needed without the package

    return dlib.shape_predictor(str(model_file()))


def landmarks68(pixels: np.ndarray, dense: Float[np.ndarray, "468 3"]) -> Float[np.ndarray, "68 2"] | None:
    """iBUG points in photo pixels (first pixel's centre at .5), or None without the model or where it fails
    on this face.
    """
    if model_file() is None:
        return None
    import dlib

    square = face_mesh.square_of(dense, _MARGIN)
    matrix = cropping.square_to_photo(square.center, square.side, _SIZE, square.angle)
    image = np.ascontiguousarray(cropping.warp(pixels, matrix, _SIZE))
    face = _SIZE / _MARGIN
    found = []
    for right, down, size in _BOXES:
        x, y = _SIZE / 2 + right * face, _SIZE / 2 + (_BOX_DOWN + down) * face
        half = _BOX_SIDE * size * face / 2
        box = dlib.rectangle(*(round(v) for v in (x - half, y - half, x + half, y + half)))
        found.append([(p.x + 0.5, p.y + 0.5) for p in _predictor()(image, box).parts()])
    points = np.median(np.array(found), axis=0) @ matrix[:2, :2].T + matrix[:2, 2]
    apart = np.linalg.norm(points[17:] - dense[_NEAR_INNER, :2], axis=1).mean()
    if apart > _AGREEMENT * square.side / _MARGIN:
        return None
    return points.astype(np.float32)
