"""What our detector finds on synthetic photographs: an encoder must learn from points like those of use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from facefit.encoder.landmarks import ibug_points
from facefit.photo import face_mesh
from facefit.photo.detect import MIN_SCORE
from facefit.photo.face_mesh import Square

_BATCH = 30  # squares looked at together
_FOREHEAD = 0.12  # of the 68 points' box: how far the dense points' middle lies above theirs
_TALLER = 1.25  # side of the dense points' box over that of the 68
_MOST_APART = 0.15  # of the face: between the points found and the true ones, on average


def dense_points(
    photos: Sequence[np.ndarray], landmarks: Float[np.ndarray, "N 68 2"]
) -> tuple[Float[np.ndarray, "N 468 3"], Bool[np.ndarray, " N"]]:
    """The Face Mesh points of photographs, and whether the face was found.

    The search is left out: the first look is where the true landmarks are, the second around its points, and
    the mean of that and of a mirrored look is taken. A face counts as found by the rules of use.

    Args:
        photos: sRGB, uint8. landmarks: the true iBUG points, pixels.
    """
    points, _ = face_mesh.landmarks_of(photos, [_first_look(marks) for marks in landmarks], _BATCH)
    squares = [face_mesh.square_of(one) for one in points]
    squares += [replace(square, mirrored=True) for square in squares]
    looks, scores = face_mesh.landmarks_of([*photos, *photos], squares, _BATCH)
    points, count = looks.reshape(2, -1, 468, 3).mean(0), len(landmarks)
    apart = [np.linalg.norm(ibug_points(p) - m, axis=1)[17:].mean() for p, m in zip(points, landmarks)]
    sure = np.array([face_mesh.probability(score) >= MIN_SCORE for score in scores[:count]])
    there = np.array(apart) <= _MOST_APART * np.ptp(landmarks, axis=1).max(1)
    return points.astype(np.float32), sure & there


def _first_look(landmarks: Float[np.ndarray, "68 2"]) -> Square:
    eyes = landmarks[42:48].mean(0) - landmarks[36:42].mean(0)
    down = landmarks[8] - landmarks[27]
    angle = float(np.arctan2(eyes[1] - down[0], eyes[0] + down[1]))
    low, high = landmarks.min(0), landmarks.max(0)
    side = float((high - low).max())
    up = np.array([np.sin(angle), -np.cos(angle)])
    center = (low + high) / 2 + _FOREHEAD * side * up
    return Square((float(center[0]), float(center[1])), side * _TALLER * face_mesh.MARGIN, angle)
