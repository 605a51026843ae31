"""What our detector finds on synthetic photographs: an encoder must learn from points like those of use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from facefit.encoder.landmarks import ibug_points, on_face
from facefit.photo import face_mesh
from facefit.photo.detect import MIN_SCORE
from facefit.photo.face_mesh import Square

_BATCH = 30  # squares looked at together
_FOREHEAD = 0.12  # of the 68 points' box: how far the dense points' middle lies above theirs
_TALLER = 1.25  # side of the dense points' box over that of the 68


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
    points = looks.reshape(2, -1, 468, 3).mean(0)
    found = [
        face_mesh.probability(score) >= MIN_SCORE and on_face(ibug_points(dense), marks)
        for dense, marks, score in zip(points, landmarks, scores)  # the plain looks' scores come first
    ]
    return points.astype(np.float32), np.array(found)


def _first_look(landmarks: Float[np.ndarray, "68 2"]) -> Square:
    eyes = landmarks[42:48].mean(0) - landmarks[36:42].mean(0)
    down = landmarks[8] - landmarks[27]
    angle = face_mesh.roll_of(eyes, down)
    low, high = landmarks.min(0), landmarks.max(0)
    side = float((high - low).max())
    up = np.array([np.sin(angle), -np.cos(angle)])
    center = (low + high) / 2 + _FOREHEAD * side * up
    return Square((float(center[0]), float(center[1])), side * _TALLER * face_mesh.MARGIN, angle)
