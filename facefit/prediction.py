"""The encoder's prediction in fitting's words: as a result of its own, and as an estimate that a fit starts
from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from facefit.encoder.predict import check_model, predict
from facefit.encoder.weights import TrainedEncoder, embedded_encoder, load_encoder
from facefit.fit.estimate import Estimate
from facefit.fit.result import Fit, FittedView
from facefit.metrics import landmark_rmse
from facefit.model import FaceModel
from facefit.photo import Photograph


def encoder_start(
    model: FaceModel, encoder: Path | TrainedEncoder | None = None
) -> Callable[[Sequence[Photograph]], Estimate]:
    """Who estimates the face in one person's photographs, for `facefit.fit.subject.fit_subject`.

    Args:
        encoder: a trained encoder, or its file, which is read; None takes the embedded one.

    Raises:
        InputError: the encoder is not for this model, or there is none; later, where a photograph is given
            with landmarks and the detector sees no face there.
    """
    trained = _trained(encoder)
    check_model(model, trained)

    def estimate(photographs: Sequence[Photograph]) -> Estimate:
        found = predict(photographs, model, trained)
        return Estimate(
            identity=found.identity,
            albedo=found.albedo,
            expressions=np.stack([view.expression for view in found.views]),
            lighting=np.stack([view.lighting for view in found.views]),
            source="encoder",
        )

    return estimate


def predicted_fit(
    photographs: Sequence[Photograph],
    entries: list[dict],
    model: FaceModel,
    source: str,
    encoder: Path | TrainedEncoder | None = None,
) -> Fit:
    """The encoder's prediction as the record that fitting returns, so that everything written is the same.

    Args:
        entries: of `read_photographs`; those of the photographs used are completed, among others by
            "identity_share": how much of the person's identity comes from this photograph.
        encoder: a trained encoder, or its file, which is read; None takes the embedded one.
    """
    before = time.perf_counter()
    trained = _trained(encoder)
    found = predict(photographs, model, trained)
    views = []
    for photograph, view in zip(photographs, found.views):
        rmse = landmark_rmse(view.landmarks68, view.detected68)
        eyes = float(np.linalg.norm(view.detected68[36] - view.detected68[45]))
        views.append(
            FittedView(
                file=photograph.path,
                expression=view.expression,
                rotation=view.rotation,
                translation=view.translation,
                focal_px=view.focal_px,
                center=view.center,
                size=photograph.pixels.shape[:2],
                lighting=view.lighting,
                landmarks68=view.landmarks68,
                landmark_rmse_px=rmse,
                landmark_rmse_percent=100.0 * rmse / max(eyes, 1.0),
                energies={},
                outcome="predicted",
            )
        )
    left = zip(views, (found.confidence / found.confidence.sum(0)).mean(1), strict=True)
    for entry in entries:
        if entry["outcome"] == "read":
            view, share = next(left)
            entry["outcome"] = view.outcome
            entry["landmark_rmse_px"] = view.landmark_rmse_px
            entry["landmark_rmse_percent"] = view.landmark_rmse_percent
            entry["energies"] = {}
            entry["identity_share"] = float(share)
    details = {
        "landmark_rmse_px": float(np.mean([view.landmark_rmse_px for view in views])),
        "preset": "encoder",
        "model": source or model.name,
        "encoder": trained.facts,
        "photos": entries,
        "seconds": {"encoder": time.perf_counter() - before},
    }
    return Fit(model, found.identity, found.albedo, tuple(views), details)


def _trained(encoder: Path | TrainedEncoder | None) -> TrainedEncoder:
    if isinstance(encoder, TrainedEncoder):
        return encoder
    return embedded_encoder() if encoder is None else load_encoder(encoder)
