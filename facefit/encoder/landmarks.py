"""The 68 iBUG points that training and prediction see, from the dense points of our own detector."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from facefit.model.forward import at_points
from facefit.model.store import find_model

_NEIGHBOURS = 6  # dense points that stand for one iBUG point
MOST_APART = 0.15  # of the face: between its landmarks and the points found on it, on average
_RIDGE = 4.0  # mm^2 a squared weight: keeps the weights of points that scatter on their own small


@functools.cache
def _weights() -> Float[np.ndarray, "68 468"]:
    """Each iBUG point as an affine combination of dense points, learned on the open model.

    On the mean face, on every expression and on every identity component, where the network sees its points
    (`landmark_offset468`) is known; the weights are the least-squares ones among the dense points that stay
    near on all of them, so that an upper lip is never explained by a lower one.
    """
    model = find_model("open")
    dense, sparse = (at_points(model, points) for points in (model.landmarks468, model.landmarks68))

    def shapes(part) -> np.ndarray:
        mean, identity, expression = (
            np.asarray(a, np.float64) for a in (part.mean, part.identity_basis, part.expression_basis)
        )
        return np.concatenate([mean[None], mean + 2 * identity, mean + expression])

    seen, wanted = shapes(dense), shapes(sparse)
    if model.landmark_offset468 is not None:
        seen = seen + np.asarray(model.landmark_offset468, np.float64)
    weights = np.zeros((68, 468))
    for point in range(68):
        apart = np.linalg.norm(seen - wanted[:, point : point + 1], axis=2).max(0)
        near = np.argsort(apart, kind="stable")[:_NEIGHBOURS]
        offsets = (seen[:, near] - wanted[:, point : point + 1]).transpose(0, 2, 1).reshape(-1, _NEIGHBOURS)
        gram = offsets.T @ offsets / len(seen) + _RIDGE * np.eye(_NEIGHBOURS)
        solved = np.linalg.solve(gram, np.ones(_NEIGHBOURS))
        weights[point, near] = solved / solved.sum()
    return weights


def ibug_points(
    dense: Float[np.ndarray, "468 3"], sparse: Float[np.ndarray, "68 2"] | None = None
) -> Float[np.ndarray, "68 2"]:
    """The iBUG points, jaw points on the surface also where the head hides them.

    Args:
        dense: Face Mesh points, pixels.
        sparse: dlib's points where it agrees; brows, nose, eyes and mouth are then the mean of both.
    """
    points = _weights() @ np.asarray(dense[:, :2], np.float64)
    if sparse is not None:
        points[17:] = 0.5 * (points[17:] + sparse[17:])
    return points.astype(np.float32)


def on_face(found: Float[np.ndarray, "68 2"], landmarks: Float[np.ndarray, "68 2"]) -> bool:
    """Whether points found lie on the face that has these landmarks; the jaw, which slides, is not asked."""
    apart = np.linalg.norm(found - landmarks, axis=1)[17:].mean()
    return bool(apart <= MOST_APART * np.ptp(landmarks, axis=0).max())
