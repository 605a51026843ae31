"""A fit on disk: fit.npz, which holds every parameter and loads back bit for bit, and the files a user looks at."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from facefit.errors import FacefitError, InputError
from facefit.fit.outputs import save_landmarks, save_mesh, save_neutral, save_overlay, save_posed, write_json
from facefit.fit.result import Fit, FittedView
from facefit.fit.summary import file_names, plain, summary
from facefit.model import FaceModel
from facefit.model.npz import read_arrays, write_arrays

FORMAT = "facefit-fit"
VERSION = 1

_SCALARS = ("focal_px", "landmark_rmse_px", "landmark_rmse_percent")
_NUMBERS = ("expression", "rotation", "translation", "center", "lighting", "landmarks68")  # one array a view
_CONVENTIONS = (
    "Millimetres, radians. Model frame: x to the subject's left, y up, z out of the face. Camera frame: x right, y down, "
    "z forward; point_camera = R(rotation) @ (point_model * [1, -1, -1]) + translation, R by Rodrigues' formula. Pixels: "
    "centre of the first one at (0.5, 0.5). Lighting: order-2 spherical harmonics, linear RGB, camera frame. Rows of the "
    "view_* arrays follow view_file."
)


def fingerprint(model: FaceModel) -> str:
    """A short hash of everything that gives a model's coefficients their meaning: mean, bases, triangles, 68 points.

    Two models of one name with the same fingerprint give the same mesh for the same coefficients.
    """
    digest = hashlib.sha256()
    points = model.landmarks68
    for values in (
        model.mean,
        model.identity_basis,
        model.expression_basis,
        model.albedo_mean,
        model.albedo_basis,
        model.faces,
        points.face,
        points.barycentric,
    ):
        array = np.ascontiguousarray(values)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()[:16]


def save_parameters(fit: Fit, path: str | os.PathLike) -> None:
    """Writes fit.npz: every parameter, without pickle, so that `load` gives the same numbers back bit for bit.

    Raises:
        InputError: the file cannot be written.
    """
    views = fit.views
    energies = sorted({name for view in views for name in view.energies})
    arrays: dict[str, np.ndarray] = {
        "format": np.asarray(FORMAT),
        "version": np.asarray(VERSION, np.int32),
        "conventions": np.asarray(_CONVENTIONS),
        "model_name": np.asarray(fit.model.name),
        "model_fingerprint": np.asarray(fingerprint(fit.model)),
        "identity": np.asarray(fit.identity),
        "albedo": np.asarray(fit.albedo),
        "expression_names": _texts(fit.model.expression_names),
        "view_file": _texts(view.file for view in views),
        "view_outcome": _texts(view.outcome for view in views),
        "view_size": np.asarray([view.size for view in views], np.int32).reshape(-1, 2),
        "view_energies": np.asarray(
            [[view.energies.get(name, np.nan) for name in energies] for view in views], np.float64
        ).reshape(len(views), len(energies)),
        "energy_names": _texts(energies),
        "report": np.asarray(json.dumps(plain(fit.report))),
    }
    for name in _SCALARS:
        arrays[f"view_{name}"] = np.asarray([getattr(view, name) for view in views], np.float64)
    for name in _NUMBERS:
        rows = [np.asarray(getattr(view, name)) for view in views]
        arrays[f"view_{name}"] = np.stack(rows) if rows else np.zeros((0,), np.float32)
    write_arrays(arrays, path)


def load(folder: str | os.PathLike, model: FaceModel | None = None) -> Fit:
    """Reads what `save` wrote.

    Args:
        folder: the output folder, or the fit.npz in it.
        model: the model of the fit; None looks for it under the name or file the fit was made with.

    Raises:
        InputError: no fit there, a damaged file, or another model than the one that was fitted.
    """
    from facefit.fit.api import resolve_model

    path = Path(folder)
    path = path / "fit.npz" if path.is_dir() or path.suffix != ".npz" else path
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give the folder that `facefit fit ... -o FOLDER` wrote.")
    arrays = read_arrays(path)
    if str(arrays.get("format", "")) != FORMAT:
        raise InputError(f"{path}: not a fit of facefit. Give the fit.npz that `facefit fit` wrote.")
    if int(arrays["version"]) > VERSION:
        raise InputError(f"{path}: written by a newer facefit. Update facefit.")
    try:
        report = json.loads(str(arrays["report"]))
        name, expected = str(arrays["model_name"]), str(arrays["model_fingerprint"])
        energy_names = [str(text) for text in arrays["energy_names"]]
        views = []
        for place, file in enumerate(arrays["view_file"]):
            energies = zip(energy_names, arrays["view_energies"][place].tolist(), strict=True)
            views.append(
                FittedView(
                    file=str(file),
                    outcome=str(arrays["view_outcome"][place]),
                    size=tuple(arrays["view_size"][place].tolist()),
                    energies={name: value for name, value in energies if not np.isnan(value)},
                    **{name: float(arrays[f"view_{name}"][place]) for name in _SCALARS},
                    **{name: arrays[f"view_{name}"][place].copy() for name in _NUMBERS},
                )
            )
        identity, albedo = arrays["identity"], arrays["albedo"]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"{path}: damaged, or not written by facefit ({error!r}). Fit the photographs again.") from None
    if model is None:
        source = report.get("model") or name
        try:
            model, _ = resolve_model(source)
        except InputError as error:
            raise InputError(
                f"{path}: the model of this fit, {source}, was not found ({error}) Give it: load(folder, model)."
            ) from None
    if fingerprint(model) != expected:
        raise InputError(
            f"{path}: made with another version of the model {name} (fingerprint {expected}, here {fingerprint(model)}). "
            "Give the model it was made with: load(folder, model)."
        )
    return Fit(model=model, identity=identity, albedo=albedo, views=tuple(views), report=report)


def save(fit: Fit, folder: str | os.PathLike, pixels: Mapping[str, np.ndarray] | None = None) -> None:
    """Writes every output of a fit into `folder`, which is made where it is missing.

    Each file is written in full under another name and then moved into place, so that a file of an earlier fit is
    replaced whole or not at all; one that cannot be written leaves the others untouched.

    Args:
        pixels: upright sRGB pixels (H, W, 3) uint8 of the photographs, by the views' `file`; photographs that are not
            in it are read again. Without its photograph a view gets no overlay and adds nothing to the texture.

    Raises:
        InputError: the folder cannot be made, or some outputs could not be written (the message lists them; the others
            are there).
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=".facefit-"))
    except OSError as error:
        raise InputError(
            f"{folder}: results cannot be written there ({error.strerror or error}). Choose another folder."
        ) from None
    try:
        failures = _write_all(fit, folder, staging, dict(pixels or {}))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if failures:
        listed = "; ".join(f"{name} ({reason})" for name, reason in failures.items())
        raise InputError(
            f"{folder}: not everything could be written: {listed}. The other results are there; see that the disk has room."
        )


def _write_all(fit: Fit, folder: Path, staging: Path, pixels: dict[str, np.ndarray]) -> dict[str, str]:
    """Writes every output; returns the names of those that failed, with the reason."""
    failures: dict[str, str] = {}

    def output(writer: Callable[[Path], None], *names: str) -> None:
        try:
            writer(staging)
            for name in names:
                os.replace(staging / name, folder / name)
        except Exception as error:  # noqa: BLE001  whatever goes wrong with one file, the others are written
            failures[", ".join(names)] = str(error) or type(error).__name__

    output(lambda at: save_parameters(fit, at / "fit.npz"), "fit.npz")
    output(lambda at: save_neutral(fit, at), "neutral.ply", "landmarks3d.json")
    names = file_names([view.file for view in fit.views])
    for place, (view, name) in enumerate(zip(fit.views, names, strict=True)):
        landmarks = f"{name}.landmarks.json"
        output(lambda at, view=view, to=landmarks: save_landmarks(view.landmarks68, at / to), landmarks)
        posed = f"{name}.posed.ply"
        output(lambda at, place=place, to=posed: save_posed(fit, place, at / to), posed)
        if _find_pixels(view, pixels, failures):
            overlay = f"{name}.overlay.png"
            output(
                lambda at, place=place, view=view, to=overlay: save_overlay(fit, place, pixels[view.file], at / to), overlay
            )
    output(lambda at: save_mesh(fit, pixels, at), "mesh.glb", "mesh.obj", "mesh.mtl", "mesh.png")
    # Last, since it tells of the outputs that failed.
    digest = fingerprint(fit.model)
    output(lambda at: write_json(summary(fit, digest, failures), at / "summary.json", indent=1), "summary.json")
    return failures


def _find_pixels(view: FittedView, pixels: dict[str, np.ndarray], failures: dict[str, str]) -> bool:
    if view.file not in pixels:
        from facefit.photo import read_pixels

        try:
            pixels[view.file], _ = read_pixels(view.file)
        except FacefitError as error:
            failures[f"the overlay of {view.file}"] = str(error)
            return False
    if pixels[view.file].shape[:2] != tuple(view.size):
        failures[f"the overlay of {view.file}"] = "the photograph has another size than the one that was fitted"
        del pixels[view.file]
        return False
    return True


def _texts(values: Iterable[str]) -> np.ndarray:
    return np.asarray(list(values), dtype=np.str_)
