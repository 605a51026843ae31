"""Run facefit over a folder laid out as our evaluation kit and print the kit's own scores.

    python -m experiments.evaluate_kit RUN [--kit ../shared/data/kit] [--model open] [--preset default]
        [--only geometry landmarks synth frll ...] [--mode set|single|both] [--limit N] [--overlays DIR]

RUN/<case>/ and RUN/<case>@<stem>/ get neutral.ply and landmarks3d.json, RUN/<stem>.json the 68 projected
points. What is there already is not done again (remove it, or give --again). Only the photographs of the kit
are opened here: its cameras and answers are read by score.py alone, which runs in its own process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.command_line import exit_status
from facefit import cache
from facefit.encoder.weights import TrainedEncoder, load_encoder
from facefit.errors import FacefitError, PhotoError
from facefit.fit.outputs import save_landmarks, save_neutral, save_overlay
from facefit.fit.result import Fit
from facefit.fit.settings import Settings as Constants
from facefit.fit.storage import save_parameters
from facefit.model import FaceModel
from facefit.photo import Photograph, read_photograph, read_pixels

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Run facefit over an evaluation kit and print its scores.

    Attributes:
        run: folder of this run; what it holds already is kept.
        kit: the evaluation kit.
        model: name or file of the face model.
        preset: of the fit; "mean" scores the model's mean face, which every fit of geometry has to beat;
            "encoder" what the encoder predicts, without a fit.
        start: of the fit.
        encoder: a trained encoder's file, for that preset or that start; default the embedded one.
        only: "geometry", "landmarks", "sets" (photographs without ground truth), or the beginning of a case,
            a landmark group or a photograph's name. Several are joined by "or"; none is geometry and
            landmarks.
        mode: geometry from all photographs of a case together, from each alone, or both.
        limit: at most so many geometry cases of each kind and photographs of each landmark group, evenly
            spread.
        overlays: folder for an overlay of every fitted photograph.
        detections: folder that remembers what was detected in each photograph; default RUN/detections. Share
            it between runs while the detectors do not change.
        again: do what is there already again.
        score: print the scores at the end.
    """

    run: Annotated[Path, tyro.conf.Positional]
    kit: Path = Path(os.environ.get("FACEFIT_SHARED", ROOT.parent / "shared")) / "data" / "kit"
    model: str = "open"
    preset: str = "default"
    start: Literal["landmarks", "encoder"] = "landmarks"
    encoder: Path | None = None
    only: tuple[str, ...] = ()
    mode: Literal["set", "single", "both"] = "both"
    limit: int = 0
    overlays: Path | None = None
    detections: Path | None = None
    again: bool = False
    score: bool = True


# Pose and expression follow the landmarks, identity stays where the model has its mean.
MEAN_FACE = Constants(photometric_steps=0, identity_sigma=1e-4)


@dataclasses.dataclass(frozen=True)
class Job:
    """One fit: its photographs, where its result goes, and what kind of result that is."""

    name: str
    kind: Literal["geometry", "landmarks", "sets"]
    photos: tuple[Path, ...]
    target: Path


def jobs(settings: Settings) -> Iterator[Job]:
    """Every fit that the settings ask for, photographs of one case next to each other."""
    chosen = settings.only or ("geometry", "landmarks")

    def wanted(kind: str, *names: str) -> bool:
        return kind in chosen or any(name.startswith(chosen) for name in names)

    for kind in ("geometry", "sets"):
        cases = [case for case in _folders(settings.kit / kind) if wanted(kind, case.name)]
        for case in _limited(cases, settings.limit, key=lambda case: case.name.split("_")[0]):
            photos = tuple(sorted(case.glob("*.jpg")))
            if settings.mode != "single":
                yield Job(case.name, kind, photos, settings.run / case.name)
            if settings.mode != "set":
                for photo in photos:
                    name = f"{case.name}@{photo.stem}"
                    yield Job(name, kind, (photo,), settings.run / name)
    for group in _folders(settings.kit / "landmarks"):
        photos = [
            photo for photo in sorted(group.glob("*.jpg")) if wanted("landmarks", group.name, photo.stem)
        ]
        for photo in _limited(photos, settings.limit, key=lambda _: ""):
            yield Job(photo.stem, "landmarks", (photo,), settings.run / f"{photo.stem}.json")


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _limited(items: list[Path], limit: int, key: Callable[[Path], str]) -> list[Path]:
    if not limit:
        return items
    kept = []
    for kind in dict.fromkeys(key(item) for item in items):
        members = [item for item in items if key(item) == kind]
        kept += [members[i] for i in np.unique(np.linspace(0, len(members) - 1, limit).round().astype(int))]
    return kept


class Detections:
    """Photographs, with what was detected in them kept on disk under a name made from the file's bytes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        of_the_file = {"path", "pixels", "exif_focal_px"}
        self.fields = {field.name for field in dataclasses.fields(Photograph)} - of_the_file

    def read(self, path: Path) -> Photograph:
        """As `read_photograph`. A photograph in which no face is found is tried again every time."""
        stored = self.folder / f"{path.stem}.{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.npz"
        if stored.is_file() and (found := self._stored(stored)) is not None:
            pixels, exif_focal_px = read_pixels(str(path))
            return Photograph(path=str(path), pixels=pixels, exif_focal_px=exif_focal_px, **found)
        photograph = read_photograph(str(path))
        found = {name: getattr(photograph, name) for name in self.fields}
        arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in found.items() if name not in arrays}
        temporary = stored.with_suffix(".part.npz")
        np.savez(temporary, plain=np.asarray(json.dumps(plain, default=float)), **arrays)
        temporary.replace(stored)
        return photograph

    def _stored(self, file: Path) -> dict | None:
        """The fields in a file; None where an older version of facefit wrote others."""
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        found |= json.loads(str(found.pop("plain")))
        if set(found) != self.fields:
            return None
        return found | {name: tuple(found[name]) for name in ("box", "warnings")}


def run_job(
    job: Job,
    model: FaceModel,
    settings: Settings,
    detections: Detections,
    trained: TrainedEncoder | None = None,
) -> tuple[Fit, list[Photograph]]:
    """One fit and its files. Photographs in which no face is found are left out, as `facefit fit` does.

    Args:
        trained: the encoder of `settings.encoder`; None is the embedded one.

    Raises:
        PhotoError: none of the photographs is usable.
    """
    from facefit.fit.subject import fit_subject
    from facefit.prediction import encoder_start, predicted_fit

    photographs, failures = [], []
    for path in job.photos:
        try:
            photographs.append(detections.read(path))
        except PhotoError as error:
            failures.append(str(error))
    if not photographs:
        raise PhotoError("; ".join(failures))
    if settings.preset == "encoder":
        fit = predicted_fit(photographs, [], model, "", trained)
    else:
        preset = MEAN_FACE if settings.preset == "mean" else settings.preset
        estimate = None
        if settings.start == "encoder":
            estimate = encoder_start(model, trained)(photographs)
        fit = fit_subject(photographs, model, preset, estimate=estimate)
    if job.kind == "landmarks":
        save_landmarks(fit, 0, job.target)
        with contextlib.suppress(OSError):
            (job.target.parent / "fits").mkdir(exist_ok=True)
            save_parameters(fit, job.target.parent / "fits" / f"{job.name}.npz")
    else:
        job.target.mkdir(parents=True, exist_ok=True)
        save_parameters(fit, job.target / "fit.npz")
        save_neutral(fit, job.target)
    return fit, photographs


def done(job: Job) -> bool:
    """Whether an earlier run has written this job's result (its last file)."""
    return job.target.is_file() if job.kind == "landmarks" else (job.target / "landmarks3d.json").is_file()


def score(settings: Settings) -> None:
    """Prints what the kit's own scorer says about the run and keeps its JSON in RUN/score_*.json."""
    kinds = {job.kind for job in jobs(settings)} - {"sets"}
    names = {job.name.split("@")[0] for job in jobs(settings) if job.kind == "geometry"}
    for kind in sorted(kinds):
        command = [sys.executable, str(settings.kit / "score.py"), kind, "--kit", str(settings.kit)]
        command += ["--pred", str(settings.run), "--json", str(settings.run / f"score_{kind}.json")]
        if kind == "geometry":
            command += ["--mode", settings.mode, "--only", ",".join(sorted(names))]
        subprocess.run(command, check=True)


def main(settings: Settings) -> None:
    """Fits everything the settings ask for, one line a fit, then scores."""
    from facefit.fit.api import resolve_model

    cache.enable()
    settings.run.mkdir(parents=True, exist_ok=True)
    detections = Detections(settings.detections or settings.run / "detections")
    model, _ = resolve_model(settings.model)
    trained = load_encoder(settings.encoder) if settings.encoder else None  # once, for all cases
    if settings.overlays:
        settings.overlays.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs(settings) if settings.again or not done(job)]
    for place, job in enumerate(todo, 1):
        start = time.perf_counter()
        try:
            fit, photographs = run_job(job, model, settings, detections, trained)
        except FacefitError as error:
            print(f"[{place}/{len(todo)}] {job.name}: FAILED: {error}", flush=True)
            continue
        except Exception:  # noqa: BLE001  one broken fit must not end a run of hours; it is counted as missing
            print(f"[{place}/{len(todo)}] {job.name}: CRASHED", flush=True)
            traceback.print_exc()
            continue
        seconds = time.perf_counter() - start
        percent = np.mean([view.landmark_rmse_percent for view in fit.views])
        odd = sorted({view.outcome for view in fit.views} - {"fitted"})
        print(
            f"[{place}/{len(todo)}] {job.name}: {len(fit.views)} of {len(job.photos)} photographs, "
            f"landmarks {percent:.1f} %, {seconds:.1f} s{'; ' if odd else ''}{', '.join(odd)}",
            flush=True,
        )
        if settings.overlays:
            for number, photograph in enumerate(photographs):
                suffix = f"+{Path(photograph.path).stem}" if len(job.photos) > 1 else ""
                path = settings.overlays / f"{job.name}{suffix}.png"
                save_overlay(fit, number, photograph.pixels, path, photograph.landmarks68)
    if settings.score:
        score(settings)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(tyro.cli(Settings))))
