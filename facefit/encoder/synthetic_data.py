"""Makes a data set of synthetic photographs: several of every random person, resumable, on all cores."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facefit import cache
from facefit.encoder import dataset
from facefit.encoder.detection import dense_points
from facefit.encoder.workers import in_processes
from facefit.errors import InputError
from facefit.model.store import find_model
from facefit.photo.face_crop import CROP_FOCAL, NETWORK_SHARE
from facefit.synthesis import Grade, prepare_head, random_grade, random_photo

_PART = 60  # samples kept at a time


@dataclasses.dataclass(frozen=True)
class SynthesisSettings:
    """What the data are; the same settings give the same data.

    Attributes:
        count: photographs. per_person: how many of every person. seed: of everything random.
        model: name or path of the face model. size: side of the crops, pixels.
        graded: each person's photographs are spoiled from not at all to hardly usable: turned away, covered,
            blurred (see `facefit.synthesis.grading`).
    """

    count: int
    seed: int = 0
    model: str = "open"
    size: int = 192
    per_person: int = 3
    graded: bool = False


def synthesize(
    folder: Path,
    settings: SynthesisSettings,
    workers: int = 1,
    show: Callable[[str, float], None] = lambda *_: None,
) -> int:
    """Makes the data set in `folder`, or goes on with it. Returns the number of photographs made now.

    Raises:
        InputError: a setting out of range, an unknown model, or the folder is taken (see `dataset.begin`).
    """
    for name, least in (("count", 1), ("per_person", 1), ("size", 64), ("seed", 0)):
        if getattr(settings, name) < least:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(settings, name)}: must be at least {least}."
            )
    model = find_model(settings.model)
    told = dataclasses.asdict(settings)
    if not settings.graded:
        del told["graded"]  # data sets begun before there were grades go on
    if not dataset.begin(folder, told):
        return 0
    parts = range(0, settings.count, _PART)
    missing = [first for first in parts if dataset.read_part(folder, f"{first:06d}") is None]
    made, before = (0, settings.count - sum(min(_PART, settings.count - first) for first in missing))
    task = functools.partial(_make_part, folder, settings)
    for first, rows in zip(missing, in_processes(task, missing, workers)):
        images = [dataset.read_sample(folder, first + k)[0] for k in range(len(rows["subject"]))]
        rows["dense"], found = dense_points(images, rows["landmarks"])
        rows["split"] = np.where(found, rows["split"], dataset.UNSEEN).astype(np.int8)
        dataset.write_part(folder, f"{first:06d}", rows)
        made += len(images)
        show(f"making {settings.count} synthetic photographs", (before + made) / settings.count)
    read = [dataset.read_part(folder, f"{first:06d}") for first in parts]
    arrays = {name: np.concatenate([part[name] for part in read]) for name in read[0]}
    facts = {
        "kind": "synthetic",
        "size": settings.size,
        "model": model.name,
        "coefficients": {
            "identity": len(model.identity_basis),
            "expression": len(model.expression_basis),
            "albedo": len(model.albedo_basis),
        },
        "crop_focal_px": CROP_FOCAL * NETWORK_SHARE * settings.size,
    }
    dataset.finish(folder, facts, arrays)
    return made


@functools.lru_cache(maxsize=1)
def _head(model: str):
    cache.enable()
    return prepare_head(find_model(model))


def _make_part(folder: Path, settings: SynthesisSettings, first: int) -> dict[str, np.ndarray]:
    """Makes `_PART` photographs from number `first` on; returns what is known of them."""
    head = _head(settings.model)
    rows = []
    for index in range(first, min(first + _PART, settings.count)):
        person, picture = divmod(index, settings.per_person)
        key = (settings.seed, person)
        grade = random_grade(key, picture, settings.per_person) if settings.graded else None
        photo = random_photo(head, key, (picture,), settings.size, grade)
        dataset.write_sample(folder, index, photo.image, photo.skin)
        rows.append(
            {
                "landmarks": photo.landmarks,
                "landmark_weight": np.ones(68, np.float32),
                "subject": np.int32(person),
                "split": np.int8(dataset.split_of(person)),
                "source": np.array(f"seed {settings.seed} person {person} picture {picture}", "U64"),
                "focal": np.float32(photo.truth.focal),
            }
            | {name: getattr(photo.truth, name) for name in dataset.TRUTH[:-1]}
            | ({} if grade is None else _grades(grade, photo.hidden))
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _grades(grade: Grade, hidden: float) -> dict[str, np.float32]:
    values = dict(zip(dataset.GRADES, (grade.turned, hidden, grade.blurred), strict=True))
    return {name: np.float32(value) for name, value in values.items()}
