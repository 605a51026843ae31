"""`facefit predict`: photographs in, a folder of results out, by the encoder alone, without a fit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from facefit.cli.fit import conclude, output_folder, write
from facefit.cli.progress import progress

if TYPE_CHECKING:
    from facefit.cli.arguments import Predict


def run(arguments: Predict) -> int:
    """Predicts and writes; tells on standard error which photographs failed, on standard output what was
    done.
    """
    from facefit import cache
    from facefit.fit.api import check_photos, face_choice, read_photographs, resolve_model
    from facefit.prediction import predicted_fit

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
