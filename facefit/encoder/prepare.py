"""Makes a data set of photographs: faces found, checked and cut out; resumable, with reasons for refusals."""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import hashlib
import io
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from facefit import cache
from facefit.encoder import dataset
from facefit.encoder.photo_samples import photo_sample
from facefit.encoder.photo_sources import Grouping, Source, find_sources
from facefit.encoder.workers import in_processes
from facefit.errors import FacefitError, InputError, PhotoError
from facefit.model.atomic import write_text

_PART = 8  # photographs kept at a time


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """What is taken from the photographs.

    Attributes:
        size: side of the crops, pixels.
        min_face: least size of a face in the photograph, pixels (longer side of the points' box).
        persons: who is on a photograph: "folder" (each folder is a person), "name" (the file's name without a
            number at its end), "each" (every photograph another person), or "auto": folders where there are
            several, else names.
    """

    size: int = 192
    min_face: int = 48
    persons: Grouping = "auto"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run: samples taken in all, and (photograph, reason) of what was not."""

    accepted: int
    rejected: list[tuple[str, str]]


def prepare(
    folders: Sequence[Path],
    output: Path,
    settings: PrepareSettings,
    workers: int = 1,
    show: Callable[[str, float], None] = lambda *_: None,
) -> Outcome:
    """Makes the data set in `output`, or goes on with it. `rejected.csv` in it lists what was not taken.

    Raises:
        InputError: no photographs, a setting out of range, or the output is taken (see `dataset.begin`).
        PhotoError: no photograph could be used.
    """
    if settings.size < 64 or settings.min_face < 1:
        raise InputError("--size must be at least 64, --min-face at least 1.")
    if len({Path(folder).resolve().name for folder in folders}) < len(folders):
        raise InputError(
            "Two of the folders have the same name, which tells their persons apart. Rename one."
        )
    sources, rejected = [], []
    for folder in folders:
        found, orphans = find_sources(Path(folder).resolve(), settings.persons)
        sources += found
        rejected += orphans
    names = hashlib.sha256("\n".join(source.name for source in sources).encode()).hexdigest()[:16]
    begun = {"photographs": len(sources), "names": names} | dataclasses.asdict(settings)
    if not dataset.begin(output, begun):
        return Outcome(sum(dataset.read_dataset(output).facts["samples"].values()), _read_rejected(output))
    parts = range(0, len(sources), _PART)
    missing = [first for first in parts if dataset.read_part(output, f"{first:06d}") is None]
    done = len(sources) - sum(len(sources[first : first + _PART]) for first in missing)
    (output / "parts" / "images").mkdir(exist_ok=True)
    (output / "parts" / "skin").mkdir(exist_ok=True)
    tasks = [(first, sources[first : first + _PART]) for first in missing]
    for count in in_processes(functools.partial(_prepare_part, output, settings), tasks, workers):
        done += count
        show(f"preparing {len(sources)} photographs", done / len(sources))
    return _finish(output, settings, sources, parts, rejected)


def _prepare_part(output: Path, settings: PrepareSettings, part: tuple[int, list[Source]]) -> int:
    """Prepares sources, given with the number of the first; returns how many they are."""
    cache.enable()
    first, sources = part
    rows = []
    for number, source in enumerate(sources, first):
        landmarks, weight = np.zeros((68, 2), np.float32), np.zeros(68, np.float32)
        dense, digest, reason = np.zeros((468, 3), np.float32), "", ""
        try:
            sample = photo_sample(source, settings.size, settings.min_face)
        except FacefitError as error:
            reason = _reason(error, source)
        else:
            landmarks, weight = sample.landmarks, sample.landmark_weight
            dense, digest = sample.dense, sample.digest
            dataset.write_sample(output / "parts", number, sample.image, sample.skin)
        rows.append(
            {
                "landmarks": landmarks,
                "landmark_weight": weight,
                "dense": dense,
                "digest": np.array(digest, "U16"),
                "reason": np.array(reason, "U400"),
            }
        )
    dataset.write_part(
        output, f"{first:06d}", {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    )
    return len(rows)


def _reason(error: FacefitError, source: Source) -> str:
    reason = str(error).removeprefix(f"{source.picture}: ")
    if isinstance(source.landmarks, Path):
        reason = reason.replace(f"{source.landmarks}:", f"its landmark file {source.landmarks.name}", 1)
    return reason


def _finish(
    output, settings, sources: list[Source], parts: range, rejected: list[tuple[str, str]]
) -> Outcome:
    """Numbers the samples, splits them by person, and writes what was not taken."""
    read = [dataset.read_part(output, f"{first:06d}") for first in parts]
    arrays = {name: np.concatenate([part[name] for part in read]) for name in read[0]}
    seen: dict[str, str] = {}
    taken = []
    for number, source in enumerate(sources):
        reason, digest = str(arrays["reason"][number]), str(arrays["digest"][number])
        if not reason and digest in seen:
            reason = f"the same picture as another one: {seen[digest]}"
        if reason:
            rejected.append((source.name, reason))
        else:
            seen[digest] = source.name
            taken.append(number)
    rows = io.StringIO()
    csv.writer(rows).writerows([("photograph", "reason"), *rejected])
    write_text(output / "rejected.csv", rows.getvalue())
    if not taken:
        examples = "; ".join(f"{name}: {reason}" for name, reason in rejected[:3])
        raise PhotoError(f"{output}: none of the {len(sources)} photographs could be used. {examples}")
    persons = sorted(
        {sources[number].person for number in taken}, key=lambda name: (zlib.crc32(name.encode()), name)
    )
    subject = {name: index for index, name in enumerate(persons)}
    for index, number in enumerate(taken):
        for kind, ending in (("images", "jpg"), ("skin", "png")):
            link(output / "parts" / kind / f"{number:06d}.{ending}", output / kind / f"{index:06d}.{ending}")
    subjects = np.array([subject[sources[number].person] for number in taken], np.int32)
    names = [sources[number].name for number in taken]
    # Without the particulars in brackets and the advice: what is counted together.
    reasons = collections.Counter(
        reason.split("(")[0].split(". ")[0].split(":")[0].strip() for _, reason in rejected
    )
    facts = {"kind": "photographs", "size": settings.size, "persons": len(persons), "rejected": dict(reasons)}
    dataset.finish(
        output,
        facts,
        {
            "landmarks": arrays["landmarks"][taken],
            "landmark_weight": arrays["landmark_weight"][taken],
            "dense": arrays["dense"][taken],
            "subject": subjects,
            "split": np.array([dataset.split_of(int(s)) for s in subjects], np.int8),
            "source": np.array(names),
        },
    )
    return Outcome(len(taken), rejected)


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where there can be no link."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _read_rejected(output: Path) -> list[tuple[str, str]]:
    with (output / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return [(row[0], row[1]) for row in csv.reader(file)][1:]
