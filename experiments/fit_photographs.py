"""Fits every photograph of a data set, so that an encoder can learn from the fits:
`python -m experiments.fit_photographs PHOTOGRAPHS -o FITTED`.

FITTED is the same data set with the coefficients that analysis by synthesis finds as its truth: weak
supervision as in Deng et al. 2019, but with hundreds of looks at each photograph instead of one a step, and
no drawing while the network learns. What cannot be fitted well is left out of every split. Goes on where it
was stopped.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments.command_line import exit_status
from facefit import cache
from facefit.encoder import dataset
from facefit.encoder.prepare import link
from facefit.errors import InputError
from facefit.fit.settings import PRESETS, Settings
from facefit.fit.subject import fit_subject
from facefit.model import FaceModel, find_model
from facefit.photo import Photograph
from facefit.photo.face_crop import CROP_FOCAL, NETWORK_SHARE

_PART = 20  # photographs kept at a time
_LABELS = tuple(name for name in dataset.TRUTH if name != "focal")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Fit the photographs of a data set.

    Attributes:
        photographs: folder of `facefit prepare`.
        output: folder of the data set to make.
        model: name or file of the face model.
        preset: of the fit.
        landmarks_only: fit geometry alone, in a fifth of the time: albedo and light stay as they begin.
        most_rmse: landmarks of a fit to learn from miss by so much at most, percent of the eyes' distance.
        identity_kept: share of each fit's identity that is learned. A fit of one photograph takes more of it
            for shape than is shape: half of what it finds is nearer to measured heads than all of it.
    """

    photographs: tyro.conf.Positional[Path]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    model: str = "open"
    preset: str = "default"
    landmarks_only: bool = False
    most_rmse: float = 6.0
    identity_kept: float = 0.5


def fitted_labels(
    image: np.ndarray, dense: np.ndarray, model: FaceModel, preset: str | Settings
) -> dict[str, np.ndarray]:
    """The coefficients of one stored crop, and how far its landmarks are off.

    The camera is that of the encoder's crop: a convention that is nearer to portraits than to take the crop
    for the whole photograph.
    """
    low, high = dense[:, :2].min(0), dense[:, :2].max(0)
    focal = CROP_FOCAL * NETWORK_SHARE * len(image)
    photograph = Photograph("", image, None, (*low, *high), dense, None, None, 1.0)
    fit = fit_subject([photograph], model, preset, focal_px=focal)
    view = fit.views[0]
    labels = {"identity": fit.identity, "albedo": fit.albedo}
    labels |= {name: getattr(view, name) for name in _LABELS if name not in labels}
    rmse = view.landmark_rmse_percent if view.outcome == "fitted" else np.inf
    return {name: np.asarray(value, np.float32) for name, value in labels.items()} | {
        "focal": np.float32(focal),
        "rmse": np.float32(rmse),
    }


def label(arguments: Arguments) -> int:
    """Makes the data set, or goes on with it; returns how many photographs can be learned from.

    Raises:
        InputError: no data set of photographs, no such preset, or the output is taken.
    """
    data = dataset.read_dataset(arguments.photographs)
    if data.labelled:
        raise InputError(f"{arguments.photographs}: what its photographs show is known already.")
    if not 0.0 <= arguments.identity_kept <= 1.0:
        raise InputError(f"--identity-kept {arguments.identity_kept}: must be in [0, 1].")
    if arguments.preset not in PRESETS:
        raise InputError(f"there is no preset {arguments.preset!r}: choose one of {', '.join(PRESETS)}")
    model = find_model(arguments.model)
    settings = {"photographs": len(data.split), "facts": data.facts, "preset": arguments.preset}
    settings |= {"model": arguments.model, "most_rmse": arguments.most_rmse}
    settings |= {"identity_kept": arguments.identity_kept}
    preset = PRESETS[arguments.preset]
    if arguments.landmarks_only:
        settings["landmarks_only"] = True  # data sets begun before there was a choice go on
        preset = preset.replace(photometric_steps=0, landmark_steps=6, final_steps=2)
    if not dataset.begin(arguments.output, settings):
        data = dataset.read_dataset(arguments.output)
        return int((data.split != dataset.UNSEEN).sum())
    parts = range(0, len(data.split), _PART)
    for first in parts:
        if dataset.read_part(arguments.output, f"{first:06d}") is not None:
            continue
        rows = []
        for index in range(first, min(first + _PART, len(data.split))):
            image, _ = dataset.read_sample(data.folder, index)
            rows.append(fitted_labels(image, data.dense[index], model, preset))
            for name in (f"images/{index:06d}.jpg", f"skin/{index:06d}.png"):
                link(data.folder / name, arguments.output / name)
        together = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        dataset.write_part(arguments.output, f"{first:06d}", together)
        print(f"{first + len(rows)} of {len(data.split)} photographs fitted", flush=True)
    read = [dataset.read_part(arguments.output, f"{first:06d}") for first in parts]
    found = {name: np.concatenate([part[name] for part in read]) for name in read[0]}
    good = found.pop("rmse") <= arguments.most_rmse
    arrays = {
        name: getattr(data, name) for name in ("landmarks", "landmark_weight", "dense", "subject", "source")
    }
    arrays["split"] = np.where(good, data.split, dataset.UNSEEN).astype(np.int8)
    facts = {
        "kind": "fitted photographs",
        "size": data.facts["size"],
        "model": model.name,
        "identity_kept": arguments.identity_kept,
        "coefficients": {
            "identity": len(model.identity_basis),
            "expression": len(model.expression_basis),
            "albedo": len(model.albedo_basis),
        },
    }
    dataset.finish(arguments.output, facts, arrays | found)
    return int(good.sum())


def main() -> int:
    """The command line."""
    cache.enable()
    arguments = tyro.cli(Arguments)
    return exit_status(lambda: print(f"{arguments.output}: {label(arguments)} photographs to learn from"))


if __name__ == "__main__":
    sys.exit(main())
