"""The one call most users need: from files to a fit, with every photograph's fate in the report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facefit import cache, starts
from facefit.errors import FacefitError, InputError, PhotoError
from facefit.starts import LANDMARKS

if TYPE_CHECKING:
    from facefit.fit.result import Fit
    from facefit.model import FaceModel
    from facefit.photo import Photograph

Progress = Callable[[str, float], None]

PRESETS = ("fast", "default", "best")
READING_SHARE = 0.3  # of the progress bar
BAD_FIT_PERCENT = 15.0  # landmark error in percent of the eye distance; profiles stay below 10
SHORTEST_FOCAL = 0.2  # of a longer side: 136 degrees, wider than lenses that draw straight lines


def fit(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    model: str | os.PathLike | FaceModel = "open",
    preset: str = "default",
    face: str | int | tuple[float, float] = "largest",
    landmarks: str | os.PathLike | Sequence[str | os.PathLike | None] | None = None,
    focal: float | None = None,
    progress: Progress | None = None,
    start: str = LANDMARKS,
) -> Fit:
    """Fits one person's face to one or several photographs.

    A photograph that cannot be read or shows no face is left out; its entry in `report["photos"]` says why.

    Args:
        paths: the photographs, all of the same person.
        model: name of an installed model, a model file, or a `FaceModel`.
        preset: "fast", "default" or "best".
        face: which face of each photograph: "largest", a number counted from the left, or a point (x, y) in
            pixels.
        landmarks: the user's own 68 points, one file (.pts, .npy, .json) a photograph, in the same order;
            None for photographs without.
        focal: focal length in pixels of the photographs, where it is known.
        progress: called with a sentence and the fraction done.
        start: "landmarks", or "encoder": from what the embedded encoder predicts, in fewer steps. Results are
            as good; of many persons fitted in one process each takes about two thirds of the time, but a
            process that fits one person loses more with loading the encoder. Only for the model that the
            encoder was trained for.

    Raises:
        InputError: a caller's mistake (missing file, unknown model or preset, ...); nothing was computed.
        PhotoError: none of the photographs could be used (InputError where each of them is no picture at
            all).
    """
    result, _ = fit_with_photographs(paths, model, preset, face, landmarks, focal, progress, start)
    return result


def fit_with_photographs(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    model: str | os.PathLike | FaceModel = "open",
    preset: str = "default",
    face: str | int | tuple[float, float] = "largest",
    landmarks: str | os.PathLike | Sequence[str | os.PathLike | None] | None = None,
    focal: float | None = None,
    progress: Progress | None = None,
    start: str = LANDMARKS,
) -> tuple[Fit, tuple[Photograph, ...]]:
    """`fit`, and the photographs of its views, so that what is drawn over them need not be read again."""
    began = time.perf_counter()
    progress = progress or (lambda sentence, fraction: None)
    files = check_photos(paths)
    points = _check_landmarks(landmarks, files)
    choice = face_choice(face)
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown. Choose one of: {', '.join(PRESETS)}.")
    starts.check(start)
    if focal is not None and not 0 < focal < 1e7:
        raise InputError(
            f"focal length {focal:g} is not a number of pixels. Leave it out, and it is estimated."
        )

    progress("loading the model", 0.0)
    cache.enable()
    chosen_model, source = resolve_model(model, lambda sentence: progress(sentence, 0.0))
    estimator = starts.estimator(start, chosen_model)
    seconds = {"model": time.perf_counter() - began}

    from facefit.fit.rehearsal import Rehearsal
    from facefit.fit.settings import PRESETS as SETTINGS
    from facefit.fit.subject import fit_subject

    rehearsal = Rehearsal(chosen_model, SETTINGS[preset], len(files) > 1)
    try:
        photographs, entries = read_photographs(files, choice, points, progress)
        if focal is not None:
            _check_focal(focal, photographs)
    except BaseException:
        rehearsal.cancel()
        raise
    rehearsal.finish()
    seconds["photographs"] = time.perf_counter() - began - seconds["model"]

    def fitting(sentence: str, fraction: float) -> None:
        progress(sentence, READING_SHARE + (1 - READING_SHARE) * fraction)

    before = time.perf_counter()
    estimate = estimator(photographs) if estimator else None
    seconds["start"] = time.perf_counter() - before
    result = fit_subject(
        photographs, chosen_model, preset=preset, focal_px=focal, progress=fitting, estimate=estimate
    )
    seconds["fit"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - began
    progress("done", 1.0)
    return _with_report(result, entries, seconds, source, preset), photographs


def read_photographs(
    files: Sequence[str],
    face: str = "largest",
    landmarks: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[Photograph, ...], list[dict]]:
    """Reads photographs and finds the face in each.

    Returns:
        the usable ones, and one entry of `report["photos"]` for every file; those that failed carry
        "outcome": "failed: MESSAGE".

    Raises:
        PhotoError: none is usable. InputError: the same, and each is the caller's mistake (no picture, too
            large, ...).
    """
    from facefit.photo import read_photograph

    photographs, entries, errors = [], [], []
    for place, file in enumerate(files):
        if progress:
            progress(f"finding the face in {os.path.basename(file)}", READING_SHARE * place / len(files))
        before = time.perf_counter()
        try:
            photograph = read_photograph(file, face=face, landmarks=landmarks[place] if landmarks else None)
        except FacefitError as error:  # a file that is no picture spoils one photograph, not the others
            errors.append(error)
            entries.append({"file": file, "outcome": f"failed: {error}", "warnings": []})
            continue
        photographs.append(photograph)
        entries.append(
            {
                "file": file,
                "outcome": "read",
                "warnings": list(photograph.warnings),
                "size": [int(side) for side in photograph.pixels.shape[1::-1]],
                "face_box": [round(float(edge), 2) for edge in photograph.box],
                "face_score": float(photograph.face_score),
                "landmarks": photograph.landmarks68_source or "face mesh",
                "exif_focal_px": photograph.exif_focal_px,
                "seconds": time.perf_counter() - before,
            }
        )
    if not photographs:
        kind = InputError if all(isinstance(error, InputError) for error in errors) else PhotoError
        reasons = [str(error) for error in errors]
        raise kind(
            "\n".join(reasons if len(files) == 1 else ["None of the photographs could be used.", *reasons])
        )
    return tuple(photographs), entries


def resolve_model(
    model: str | os.PathLike | FaceModel, note: Callable[[str], None] | None = None
) -> tuple[FaceModel, str]:
    """A model by name, by file, or as it is; and the words that find it again ("" for a model made in
    memory).

    `note` is told where loading takes long and how to shorten it.

    Raises:
        InputError: no such model, or its file is not usable.
    """
    from facefit.model import FaceModel
    from facefit.model.store import find_model, list_models

    if isinstance(model, FaceModel):
        return model, ""
    name = os.fspath(model)
    source = name if name in list_models() else os.path.abspath(os.path.expanduser(name))
    return find_model(name, note), source


def face_choice(face: str | int | tuple[float, float]) -> str:
    """The choice among several faces in the words of `read_photograph`: "largest", "N" or "x,y".

    Raises:
        InputError: none of the three.
    """
    text = ",".join(f"{value:g}" for value in face) if isinstance(face, tuple) else str(face).strip().lower()
    try:
        numbers = [] if text == "largest" else [float(number) for number in text.split(",")]
        valid = text == "largest" or len(numbers) == 2 or (len(numbers) == 1 and int(text) > 0)
    except ValueError:
        valid = False
    if not valid:
        raise InputError(
            f"face {face!r} is none of: largest, a number counted from the left (1 is the first), "
            "a point x,y in pixels."
        )
    return text


def check_photos(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """The photographs as a list of files that exist.

    Raises:
        InputError: none at all, a missing file, a folder.
    """
    single = isinstance(paths, (str, os.PathLike))
    files = [os.fspath(path) for path in ([paths] if single else paths)]
    if not files:
        raise InputError("No photograph was given. Name at least one file.")
    for file in files:
        if os.path.isdir(file):
            raise InputError(
                f"{file}: a folder, not a photograph. "
                f"Name the files in it, for example {Path(file) / '*.jpg'}"
            )
        if not file:
            raise InputError("A photograph's name is empty. Name a file, or leave it out.")
        if os.path.islink(file) and not os.path.exists(file):
            raise InputError(f"{file}: a link that leads to no file. Give the path of the photograph itself.")
        if not os.path.exists(file):
            raise InputError(f"{file}: no such file. Check the path.")
    return files


def _check_focal(focal: float, photographs: Sequence[Photograph]) -> None:
    """Refuses a focal length that is shorter than any lens's; it is mostly one in millimetres."""
    for photograph in photographs:
        side = max(photograph.pixels.shape[:2])
        if focal < SHORTEST_FOCAL * side:
            raise InputError(
                f"focal length {focal:g}: too short for {photograph.path}, which is {side} pixels long. "
                f"It is counted in pixels: millimetres times {side}, over the sensor's longer side in "
                "millimetres. Leave it out, and it is estimated."
            )


def _check_landmarks(landmarks, files: list[str]) -> list[str | None] | None:
    if landmarks is None:
        return None
    single = isinstance(landmarks, (str, os.PathLike))
    named = [None if path is None else os.fspath(path) for path in ([landmarks] if single else landmarks)]
    if not named:
        return None
    if len(named) != len(files):
        raise InputError(
            f"{len(named)} landmark files for {len(files)} photographs. "
            "Give one for each photograph, in the same order."
        )
    for file in named:
        if file is not None and not os.path.isfile(file):
            raise InputError(f"{file}: no such landmark file. Check the path.")
    return named


def _with_report(result: Fit, entries: list[dict], seconds: dict, source: str, preset: str) -> Fit:
    """The fit with the whole call in its report: photographs that failed, times, the model's source."""
    import dataclasses

    views = iter(result.views)
    for entry in entries:
        if entry["outcome"] != "read":
            continue
        view = next(views)
        entry["outcome"] = view.outcome
        entry["landmark_rmse_px"] = float(view.landmark_rmse_px)
        entry["landmark_rmse_percent"] = float(view.landmark_rmse_percent)
        if not view.landmark_rmse_percent <= BAD_FIT_PERCENT:  # or not a number
            entry["warnings"].append("The fitted face misses its landmarks by far; look at the overlay.")
        entry["energies"] = {name: float(value) for name, value in view.energies.items()}
    inner = result.report
    report = {
        "landmark_rmse_px": sum(view.landmark_rmse_px for view in result.views) / len(result.views),
        **inner,
        "preset": preset,
        "model": source or result.model.name,
        "photos": entries,
        "warnings": [*inner.get("warnings", ()), *_slowed()],
        "seconds": {**inner.get("seconds", {}), **seconds},
    }
    return dataclasses.replace(result, report=report)


def _slowed() -> list[str]:
    """A sentence where a missing compiler makes every fit slow."""
    import jax
    from facefit_kernels import library

    if library.load() or jax.default_backend() != "cpu":
        return []
    return [
        f"Drawing ran in plain JAX ({library.reason()}), which takes several times as long. "
        "Install a C++ compiler and install facefit again."
    ]
