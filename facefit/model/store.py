"""Finding models: the embedded open one by name, any other by the path of its file or folder."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facefit.errors import InputError
from facefit.model.ict import is_ict, read_ict
from facefit.model.npz import load_model, save_model
from facefit.model.records import FaceModel
from facefit.model.transfer import complete

EMBEDDED = {"open": Path(__file__).with_name("open_face.npz")}

# Formats of the field that cannot be read yet. None of these files is ever opened: some hold pickled code.
FOREIGN = {
    ".mat": "MATLAB models (BFM 2009, LYHM)",
    ".pkl": "pickled models (FLAME)",
    ".pickle": "pickled models (FLAME)",
    ".h5": "statismo models (BFM 2017, BFM 2019)",
    ".hdf5": "statismo models (BFM 2017, BFM 2019)",
    ".bin": "eos models (Surrey Face Model)",
    ".scm": "Surrey Face Models",
    ".npy": "bare arrays",
}


def list_models() -> dict[str, Path]:
    """Names that `find_model` knows, with their files."""
    return {name: path for name, path in EMBEDDED.items() if path.is_file()}


def find_model(name_or_path: str | Path, note: Callable[[str], None] | None = None) -> FaceModel:
    """The model of that name ("open"), or the model in that file or folder.

    A file of ICT-FaceKit, or its folder, is converted on the fly, which takes some seconds each time; `note`
    is told so. A file is read once per process and kept as long as it does not change.

    Raises:
        InputError: unknown name, no such file, a format that cannot be read, or a damaged file; the message
            says what there is and what to do next.
    """
    path = EMBEDDED.get(str(name_or_path), Path(name_or_path).expanduser())
    if not path.exists():
        known = (
            ", ".join(list_models()) or "none (this installation lacks its model file: install facefit again)"
        )
        raise InputError(
            f"{name_or_path}: no such model. Known names: {known}. Or give the path of a converted model: "
            "facefit models convert PATH -o model.npz"
        )
    converted = is_ict(path)
    if converted and note:
        note(
            f"{path}: ICT-FaceKit, converted on the fly; "
            f"`facefit models convert {path} -o ict.npz` does it once for all."
        )
    if path.is_dir():
        return _load(str(path), 0, 0, converted)
    _refuse_foreign(path)
    status = path.stat()
    return _load(str(path), status.st_mtime_ns, status.st_size, converted)


@functools.lru_cache(maxsize=2)
def _load(path: str, changed: int, size: int, converted: bool) -> FaceModel:
    del changed, size  # part of the cache's key: a file that was written again is read again
    if not converted:
        if Path(path).is_dir():
            raise InputError(
                f"{path}: a folder without a model. "
                "Give a model file, or the FaceXModel folder of ICT-FaceKit."
            )
        return load_model(path)
    model = read_ict(path)
    reference = EMBEDDED["open"]
    return complete(model, load_model(reference), ("albedo",)) if reference.is_file() else model


def _refuse_foreign(path: Path) -> None:
    if (kind := FOREIGN.get(path.suffix.lower())) is not None:
        raise InputError(
            f"{path}: {kind} are not supported yet, and the file was not opened. "
            "facefit reads its own .npz models and ICT-FaceKit; `--model open` needs no file."
        )
    if path.suffix.lower() != ".npz":
        raise InputError(
            f"{path}: not a model file. A model is an .npz file, or the FaceXModel folder of ICT-FaceKit."
        )


def convert(path: str | Path, out: str | Path, note: Callable[[str], None] | None = None) -> FaceModel:
    """Reads any supported model, writes it as our .npz, and returns it.

    What the source lacks (an albedo prior) is transferred from the open model.

    Raises:
        InputError: as `find_model`; or `out` does not end in .npz or cannot be written.
    """
    out = Path(out)
    if out.suffix.lower() != ".npz":
        raise InputError(f"{out}: a converted model must end in .npz.")
    model = find_model(path)
    save_model(model, out)
    if note:
        note(f"{out}: {model.name}, {out.stat().st_size / 2**20:.1f} MiB. Use it with --model {out}")
    return model


def model_info(name_or_path: str | Path) -> dict[str, Any]:
    """Facts about a model as plain numbers and words: counts, size in mm, expressions, regions, licence.

    Raises:
        InputError: as `find_model`.
    """
    model = find_model(name_or_path)
    mean = np.asarray(model.mean)
    drawn = mean[np.unique(np.asarray(model.faces))]
    return {
        "name": model.name,
        "licence": model.licence,
        "vertices": len(mean),
        "faces": len(model.faces),
        "identity_components": len(model.identity_basis),
        "expression_components": len(model.expression_basis),
        "expression_kind": "blendshapes" if model.expression_is_blendshape else "standard deviations",
        "expressions": list(model.expression_names),
        "albedo_components": len(model.albedo_basis),
        "size_mm": [round(float(extent), 1) for extent in np.ptp(drawn, axis=0)],
        "regions": {
            name: int((np.asarray(values) > 0.5).sum()) for name, values in sorted(model.regions.items())
        },
    }
