"""`facefit predict`: photographs in, a folder of results out, by the encoder alone, without a fit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from facefit.cli.fit import conclude, output_folder, write
from facefit.cli.progress import progress

if TYPE_CHECKING:
    from pathlib import Path

    from facefit.cli.arguments import Predict
    from facefit.fit.result import Fit
    from facefit.photo import Photograph


def run(arguments: Predict) -> int:
    """Predicts and writes; tells on standard error which photographs failed, on standard output what was
    done.
    """
    from facefit import cache
    from facefit.fit.api import check_photos, face_choice, read_photographs, resolve_model

    start = time.perf_counter()
    photos = check_photos(arguments.photos)
    choice = face_choice(arguments.face)
    with output_folder(arguments.output), progress() as show:
        show("loading the model", 0.0)
        cache.enable()
        model, source = resolve_model(arguments.model, lambda sentence: show(sentence, 0.0))
        photographs, entries = read_photographs(photos, choice, None, show)
        show("predicting", 0.5)
        fit = predicted_fit(photographs, entries, model, source, arguments.encoder)
        fit.report["seconds"]["total"] = time.perf_counter() - start
        show("writing the results", 0.8)
        unwritten = write(fit, photographs, arguments.output)
    return conclude(fit, arguments.output, unwritten, start)


def predicted_fit(
    photographs: tuple[Photograph, ...], entries: list[dict], model, source: str, encoder: Path | None
) -> Fit:
    """The encoder's prediction as the record that fitting returns, so that everything written is the same.

    Args:
        entries: of `read_photographs`; those of the photographs used are completed.
        encoder: a trained encoder's file; None takes the embedded one.
    """
    from facefit.encoder.predict import predict
    from facefit.encoder.weights import embedded_encoder, load_encoder
    from facefit.fit.result import Fit, FittedView
    from facefit.metrics import landmark_rmse

    before = time.perf_counter()
    trained = embedded_encoder() if encoder is None else load_encoder(encoder)
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
    left = iter(views)
    for entry in entries:
        if entry["outcome"] == "read":
            view = next(left)
            entry["outcome"] = view.outcome
            entry["landmark_rmse_px"] = view.landmark_rmse_px
            entry["landmark_rmse_percent"] = view.landmark_rmse_percent
            entry["energies"] = {}
    details = {
        "landmark_rmse_px": float(np.mean([view.landmark_rmse_px for view in views])),
        "preset": "encoder",
        "model": source or model.name,
        "encoder": trained.facts,
        "photos": entries,
        "seconds": {"encoder": time.perf_counter() - before},
    }
    return Fit(model, found.identity, found.albedo, tuple(views), details)
