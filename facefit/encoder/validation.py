"""What a network is worth, measured on faces whose truth is known and on photographs with landmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import Coefficients
from facefit.encoder.losses import project_landmarks
from facefit.encoder.surface import EncoderSurface
from facefit.metrics import nme_box
from facefit.model import FaceModel
from facefit.model.registration import similarity


def neutral_errors(
    model: FaceModel,
    frontal: np.ndarray,
    identity: Float[np.ndarray, "B I"],
    truth: Float[np.ndarray, "B I"],
) -> Float[np.ndarray, " B"]:
    """Mean distance of matching points of the frontal face without expression after the best similarity, mm.

    Args:
        frontal: vertices that count (see `EncoderSurface`).
    """
    mean, basis = np.asarray(model.mean)[frontal], np.asarray(model.identity_basis)[:, frontal]
    errors = []
    for predicted, known in zip(identity, truth):
        found, wanted = (mean + np.tensordot(c, basis, axes=1) for c in (predicted, known))
        moved = similarity(found, wanted)(found)
        errors.append(float(np.linalg.norm(moved - wanted, axis=1).mean()))
    return np.asarray(errors)


def evaluate(
    model: FaceModel,
    surface: EncoderSurface,
    predict: Callable[[np.ndarray, np.ndarray], Coefficients],
    batches: Iterable[Batch],
    size: int,
) -> dict[str, float]:
    """Figures over a data set's photographs; those that need a truth only where one is known.

    Returns:
        neutral_mm: mean error of the predicted faces, and of the mean face, mean_face_mm; improvement: one
        less their ratio; nme_percent: mean distance of the landmarks in percent of their box; photographs:
        how many were seen.
    """
    frontal = np.asarray(surface.frontal)
    neutral, of_mean, nme, count = [], [], [], 0
    for batch in batches:
        found = predict(batch.image, batch.dense)
        projected = np.asarray(project_landmarks(surface, found, size))
        for points, truth, weight in zip(projected, batch.landmarks, batch.landmark_weight):
            seen = np.asarray(weight) > 0
            if not seen.any():
                continue
            truth = np.asarray(truth)[seen]
            nme.append(nme_box(points[seen], truth, (*truth.min(0), *truth.max(0))))
        known = np.asarray(batch.labelled)
        if known.any():
            truth = np.asarray(batch.identity)[known]
            neutral.append(neutral_errors(model, frontal, np.asarray(found.identity)[known], truth))
            of_mean.append(neutral_errors(model, frontal, np.zeros_like(truth), truth))
        count += len(known)
    figures = {"photographs": float(count)}
    if nme:
        figures["nme_percent"] = float(np.mean(nme))
    if neutral:
        figures["neutral_mm"] = float(np.concatenate(neutral).mean())
        figures["mean_face_mm"] = float(np.concatenate(of_mean).mean())
        figures["improvement"] = 1.0 - figures["neutral_mm"] / figures["mean_face_mm"]
    return figures
