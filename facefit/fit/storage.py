"""A fit on disk: fit.npz, which holds every parameter and loads back bit for bit, and the files a user looks
at.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from facefit.errors import InputError
from facefit.fit import outputs
from facefit.fit.result import Fit, FittedView
from facefit.fit.summary import file_names, plain, summary
from facefit.model import FaceModel
from facefit.model.atomic import write_text
from facefit.model.npz import read_arrays, write_arrays

FORMAT = "facefit-fit"
VERSION = 1

_SCALARS = ("focal_px", "landmark_rmse_px", "landmark_rmse_percent")
_NUMBERS = ("expression", "rotation", "translation", "center", "lighting", "landmarks68")  # one array a view
_CONVENTIONS = (
    "Millimetres, radians. Model frame: x to the subject's left, y up, z out of the face. Camera frame: "
    "x right, y down, z forward; point_camera = R(rotation) @ (point_model * [1, -1, -1]) + translation, "
    "R by Rodrigues' formula. Pixels: centre of the first one at (0.5, 0.5). Lighting: order-2 spherical "
    "harmonics, linear RGB, camera frame. Rows of the view_* arrays follow view_file."
)


def fingerprint(model: FaceModel) -> str:
    """A short hash of everything that gives a model's coefficients their meaning: mean, bases, triangles, 68
    points.

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
    """Writes fit.npz: every parameter, without pickle, so that `load` gives the same numbers back bit for
    bit.

    Raises:
        InputError: the file cannot be written.
    """
    views = fit.views
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
        "view_energies": _texts(json.dumps(view.energies) for view in views),
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
        views = []
        for place, file in enumerate(arrays["view_file"]):
            views.append(
                FittedView(
                    file=str(file),
                    outcome=str(arrays["view_outcome"][place]),
                    size=tuple(arrays["view_size"][place].tolist()),
                    energies=json.loads(str(arrays["view_energies"][place])),
                    **{name: float(arrays[f"view_{name}"][place]) for name in _SCALARS},
                    **{name: arrays[f"view_{name}"][place].copy() for name in _NUMBERS},
                )
            )
        identity, albedo = arrays["identity"], arrays["albedo"]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: damaged, or not written by facefit ({error!r}). Fit the photographs again."
        ) from None
    if model is None:
        source = report.get("model") or name
        try:
            model, _ = resolve_model(source)
        except InputError as error:
            raise InputError(
                f"{path}: the model of this fit, {source}, was not found ({error}) "
                "Give it: load(folder, model)."
            ) from None
    if fingerprint(model) != expected:
        raise InputError(
            f"{path}: made with another version of the model {name} "
            f"(fingerprint {expected}, here {fingerprint(model)}). "
            "Give the model it was made with: load(folder, model)."
        )
    return Fit(model=model, identity=identity, albedo=albedo, views=tuple(views), report=report)


def save(fit: Fit, folder: str | os.PathLike, pixels: Mapping[str, np.ndarray] | None = None) -> None:
    """Writes every output of a fit into `folder`, which is made where it is missing.

    A file of an earlier fit is replaced whole or not at all; one that cannot be written leaves the others
    untouched.

    Args:
        pixels: upright sRGB pixels (H, W, 3) uint8 of the photographs, by the views' `file`; photographs that
            are not in it are read again. Without its photograph a view gets no overlay and adds nothing to
            the texture.

    Raises:
        InputError: the folder cannot be made, or some outputs could not be written (the message lists them;
            the others are there).
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: results cannot be written there ({error.strerror or error}). Choose another folder."
        ) from None
    failures = _write_all(fit, folder, dict(pixels or {}))
    if failures:
        listed = "\n".join(f"{name}: {reason}" for name, reason in failures.items())
        raise InputError(f"{folder}: not everything could be written; the other results are there.\n{listed}")


def _write_all(fit: Fit, folder: Path, pixels: dict[str, np.ndarray]) -> dict[str, str]:
    """Writes every output; returns the names of those that failed, with the reason."""
    failures: dict[str, str] = {}

    def attempt(name: str, writer: Callable, *arguments):
        try:
            return writer(*arguments)
        except Exception as error:  # noqa: BLE001  whatever goes wrong with one file, the others are written
            failures[name] = str(error) or type(error).__name__
            return None

    names = file_names([view.file for view in fit.views])
    overlays = [f"{name}.overlay.png" for name in names]
    for view, overlay in zip(fit.views, overlays, strict=True):
        attempt(overlay, _find_pixels, view, pixels)
    with ThreadPoolExecutor(1) as beside:  # the texture takes as long as everything else
        texture = beside.submit(_texture, attempt, fit, pixels)
        attempt("fit.npz", save_parameters, fit, folder / "fit.npz")
        attempt("neutral.ply", outputs.save_neutral, fit, folder)
        for place, (view, name, overlay) in enumerate(zip(fit.views, names, overlays, strict=True)):
            landmarks, posed = f"{name}.landmarks.json", f"{name}.posed.ply"
            attempt(landmarks, outputs.save_landmarks, fit, place, folder / landmarks)
            attempt(posed, outputs.save_posed, fit, place, folder / posed)
            if overlay not in failures:
                attempt(overlay, outputs.save_overlay, fit, place, pixels[view.file], folder / overlay)
        picture = texture.result()
    attempt("mesh.glb", outputs.save_glb, fit, picture, folder / "mesh.glb")
    attempt("mesh.obj", outputs.save_obj, fit, picture, folder / "mesh.obj")
    # Last, since it tells of the outputs that failed.
    attempt("summary.json", _save_summary, fit, failures, folder / "summary.json")
    return failures


def _texture(attempt: Callable, fit: Fit, pixels: dict[str, np.ndarray]) -> np.ndarray | None:
    """From the photographs; where they cannot be used, the model's albedo is better than no mesh."""
    for sources in (pixels, {}):
        picture = attempt("the texture from the photographs", outputs.texture, fit, sources)
        if picture is not None:
            return picture
    return None


def _save_summary(fit: Fit, failures: dict[str, str], path: Path) -> None:
    content = summary(fit, fingerprint(fit.model), failures)
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _find_pixels(view: FittedView, pixels: dict[str, np.ndarray]) -> None:
    """Sees to it that `pixels` holds the photograph of the view as it was fitted.

    Raises:
        FacefitError: it cannot be read, or has changed its size.
    """
    if view.file not in pixels:
        from facefit.photo import read_pixels

        pixels[view.file], _ = read_pixels(view.file)
    found = pixels[view.file].shape[:2]
    if found != tuple(view.size):
        del pixels[view.file]
        raise InputError(f"{view.file}: {found[1]} x {found[0]} pixels, not the photograph that was fitted.")


def _texts(values: Iterable[str]) -> np.ndarray:
    return np.asarray(list(values), dtype=np.str_)
