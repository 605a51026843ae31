"""Makes a data set of photographs: faces found, checked, cut out; resumable, in parallel, with reasons for refusals."""

from __future__ import annotations

import collections
import concurrent.futures
import csv
import dataclasses
import functools
import hashlib
import io
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from facefit import cache
from facefit.encoder import dataset
from facefit.encoder.landmarks import ibug_points
from facefit.encoder.photo_sources import Grouping, Source, find_sources
from facefit.errors import FacefitError, InputError, PhotoError
from facefit.model.atomic import write_text
from facefit.photo import Photograph, read_photograph, skin_weight
from facefit.photo.cropping import square_to_photo, warp
from facefit.photo.face_crop import NETWORK_SHARE, face_square, stored_crop
from facefit.photo.landmark_files import read_landmarks

_PART = 8  # photographs kept at a time
_LEAST_SCORE = 0.8  # of the detector, without landmarks of the data set's own
# Standard deviation of the Laplacian over that of the picture, inside the face at 128 px: below it the face is
# out of focus or was enlarged from next to nothing.
_LEAST_SHARPNESS = 0.02
_LEAST_INSIDE = 0.8  # of the network's crop that must lie inside the photograph
_HIDDEN_JAW = 0.25  # weight of jaw points on the far side of a turned head
_JAW_SLIDES = 0.05  # of the face: how far a jaw point may lie from the surface's and still half count
# Face Mesh points around the face, widened by this much, bound what may be skin of it.
_WIDEN = 1.08


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
    settings: PrepareSettings = PrepareSettings(),
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
        return Outcome(
            sum(dataset.read_dataset(output).facts["samples"].values()),
            _read_rejected(output),
        )
    parts = range(0, len(sources), _PART)
    missing = [first for first in parts if dataset.read_part(output, f"{first:06d}") is None]
    done = len(sources) - sum(len(sources[first : first + _PART]) for first in missing)
    (output / "parts" / "images").mkdir(exist_ok=True)
    (output / "parts" / "skin").mkdir(exist_ok=True)
    for count in _work(output, settings, sources, missing, workers):
        done += count
        show(f"preparing {len(sources)} photographs", done / len(sources))
    return _finish(output, settings, sources, parts, rejected)


def _work(output, settings, sources, missing: list[int], workers: int) -> Iterator[int]:
    tasks = [(first, sources[first : first + _PART]) for first in missing]
    task = functools.partial(_prepare_part, output, settings)
    if workers < 2 or len(tasks) < 2:
        yield from (task(*arguments) for arguments in tasks)
        return
    # Spawned, as a fork of a process that runs JAX's threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(tasks)), context) as pool:
        yield from pool.map(task, *zip(*tasks, strict=True))


def _prepare_part(output: Path, settings: PrepareSettings, first: int, sources: list[Source]) -> int:
    """Prepares `sources`, of which the first has number `first`; returns how many they are."""
    cache.enable()
    rows = []
    for number, source in enumerate(sources, first):
        row = {
            "landmarks": np.zeros((68, 2), np.float32),
            "landmark_weight": np.zeros(68, np.float32),
            "digest": np.array("", "U16"),
            "reason": np.array("", "U400"),
        }
        try:
            image, skin, row["landmarks"], row["landmark_weight"], digest = _sample(source, settings)
            row["digest"] = np.array(digest, "U16")
        except FacefitError as error:
            row["reason"] = np.array(_reason(error, source), "U400")
        else:
            dataset.write_sample(
                output / "parts", number, image, skin
            )  # a full disk is no photograph's fault
        rows.append(row)
    dataset.write_part(
        output,
        f"{first:06d}",
        {name: np.stack([row[name] for row in rows]) for name in rows[0]},
    )
    return len(rows)


def _reason(error: FacefitError, source: Source) -> str:
    reason = str(error).removeprefix(f"{source.picture}: ")
    if isinstance(source.landmarks, Path):
        reason = reason.replace(f"{source.landmarks}:", f"its landmark file {source.landmarks.name}", 1)
    return reason


def _sample(
    source: Source, settings: PrepareSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """Crop, skin weight, landmarks and their weights of one face, and a digest of the photograph's pixels."""
    if source.problem:
        raise InputError(source.problem)
    photograph, points, weight = _landmarks(source)
    size = float(np.ptp(points, axis=0).max())
    if size < settings.min_face:
        raise PhotoError(f"the face is {size:.0f} px large, less than {settings.min_face}")
    inside = _share_inside(points, photograph.pixels.shape)
    if inside < _LEAST_INSIDE:
        raise PhotoError(
            f"the face is cut off: only {100 * inside:.0f} % of its surroundings are in the picture"
        )
    matrix = stored_crop(points, settings.size)
    image = warp(photograph.pixels, matrix, settings.size)
    to_crop = np.linalg.inv(matrix)
    landmarks = (points @ to_crop[:2, :2].T + to_crop[:2, 2]).astype(np.float32)
    sharpness = _sharpness(photograph.pixels, points)
    if sharpness < _LEAST_SHARPNESS:
        raise PhotoError(f"the face is out of focus (sharpness {sharpness:.3f}, at least {_LEAST_SHARPNESS})")
    dense = None
    if photograph.landmarks468 is not None:
        dense = photograph.landmarks468.copy()
        dense[:, :2] = dense[:, :2] @ to_crop[:2, :2].T + to_crop[:2, 2]
    valid = warp(
        np.ones(photograph.pixels.shape[:2], np.float32),
        matrix,
        settings.size,
        border=cv2.BORDER_CONSTANT,
    )
    skin = skin_weight(image, dense) * _face_region(landmarks, dense, settings.size) * valid
    digest = hashlib.sha256(photograph.pixels.tobytes() + points.round().tobytes()).hexdigest()[:16]
    return image, np.round(skin * 255).astype(np.uint8), landmarks, weight, digest


def _landmarks(
    source: Source,
) -> tuple[Photograph, Float[np.ndarray, "68 2"], Float[np.ndarray, " 68"]]:
    """The photograph, its 68 points in its pixels, and how far to trust each."""
    given = source.landmarks
    if isinstance(given, Path):
        given = read_landmarks(given)
        if len(given) != 68:
            raise InputError(
                f"{source.landmarks}: holds {len(given)} points, 68 are needed. Remove it or correct it."
            )
    if given is None or source.known is not None:
        photograph = read_photograph(source.picture, face=_face_choice(source))
        if photograph.face_score < _LEAST_SCORE:
            raise PhotoError(f"the face is hard to make out (score {photograph.face_score:.2f})")
        found = ibug_points(photograph.landmarks468, photograph.landmarks68)
        if given is None:
            return photograph, found, _trust(found, found)
        apart = np.linalg.norm(given - found, axis=1)[source.known]
        if np.median(apart) > 0.15 * np.ptp(found, axis=0).max():
            raise PhotoError("the face found is not the one that its landmarks mean, or they are far off")
        weight = np.where(source.known, 1.0, 0.5 * _trust(found, found))
        return (
            photograph,
            np.where(source.known[:, None], given, found).astype(np.float32),
            weight.astype(np.float32),
        )
    photograph = read_photograph(source.picture, landmarks=given)
    surface = given if photograph.landmarks468 is None else ibug_points(photograph.landmarks468)
    if photograph.landmarks468 is not None:
        apart = np.linalg.norm(given - surface, axis=1)[17:].mean() / np.ptp(given, axis=0).max()
        if apart > 0.15:
            raise PhotoError(
                "its landmarks do not lie on the face (they differ from what the detector sees there)"
            )
    return photograph, given.astype(np.float32), _trust(given, surface)


def _face_choice(source: Source) -> str:
    """Which face of the picture: the largest, or the one around the points that are known."""
    if source.known is None:
        return "largest"
    x, y = source.landmarks[source.known].mean(0) - 0.5
    return f"{x},{y}"


def _trust(points: Float[np.ndarray, "68 2"], surface: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, " 68"]:
    """Weights of landmarks: jaw points that are hidden, or that slid along the outline of a turned head (as the
    2D schemes have them) away from the surface's points, tell less."""
    weight = np.ones(68, np.float32)
    extent = np.ptp(points, axis=0).max()
    slid = np.linalg.norm(points[:17] - surface[:17], axis=1) / extent
    weight[:17] = 1 / (1 + (slid / _JAW_SLIDES) ** 2)
    # How far the nose's bridge lies from the middle of the ears' ends of the jaw, in their distance: the
    # sine of the turn, about.
    across = points[16] - points[0]
    turn = ((points[27] - (points[0] + points[16]) / 2) @ across) / max(float(across @ across), 1e-6)
    if turn > 0.2:
        weight[9:17] *= _HIDDEN_JAW
    elif turn < -0.2:
        weight[:8] *= _HIDDEN_JAW
    return weight


def _share_inside(points: np.ndarray, shape: tuple[int, ...]) -> float:
    """Which part of the network's crop lies inside the photograph."""
    center, side = face_square(points)
    low, high = center - side / 2, center + side / 2
    inner = np.minimum(high, shape[1::-1]) - np.maximum(low, 0)
    return float(np.clip(inner, 0, None).prod() / side**2)


def _sharpness(pixels: np.ndarray, points: np.ndarray) -> float:
    center, side = face_square(points)
    face = warp(pixels, square_to_photo(center, side * NETWORK_SHARE, 128), 128)
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[4:-4, 4:-4].std() / max(grey.std(), 1.0))


def _face_region(landmarks: np.ndarray, dense: np.ndarray | None, size: int) -> Float[np.ndarray, "S S"]:
    """Where this face can be, softly: colour alone cannot tell it from hands, necks and wooden walls."""
    if dense is not None:
        points = dense[:, :2]
    else:  # the 68 points end at the brows: the forehead is as high again as the brows are above the eyes' line
        up = landmarks[17:27] + 1.2 * (landmarks[17:27].mean(0) - landmarks[28])
        points = np.concatenate([landmarks, up])
    hull = cv2.convexHull(points.astype(np.float32))[:, 0]
    middle = hull.mean(0)
    mask = np.zeros((size, size), np.float32)
    widened = middle + _WIDEN * (hull - middle)
    cv2.fillPoly(mask, [np.round((widened - 0.5) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return np.clip(cv2.GaussianBlur(mask, None, size / 96), 0, 1)


def _finish(
    output,
    settings,
    sources: list[Source],
    parts: range,
    rejected: list[tuple[str, str]],
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
        {sources[number].person for number in taken},
        key=lambda name: (zlib.crc32(name.encode()), name),
    )
    subject = {name: index for index, name in enumerate(persons)}
    for index, number in enumerate(taken):
        for kind, ending in (("images", "jpg"), ("skin", "png")):
            _link(
                output / "parts" / kind / f"{number:06d}.{ending}",
                output / kind / f"{index:06d}.{ending}",
            )
    subjects = np.array([subject[sources[number].person] for number in taken], np.int32)
    names = [sources[number].name for number in taken]
    # Without the particulars in brackets and the advice: what is counted together.
    reasons = collections.Counter(
        reason.split("(")[0].split(". ")[0].split(":")[0].strip() for _, reason in rejected
    )
    facts = {
        "kind": "photographs",
        "size": settings.size,
        "persons": len(persons),
        "rejected": dict(reasons),
    }
    dataset.finish(
        output,
        facts,
        {
            "landmarks": arrays["landmarks"][taken],
            "landmark_weight": arrays["landmark_weight"][taken],
            "subject": subjects,
            "split": np.array([dataset.split_of(int(s)) for s in subjects], np.int8),
            "source": np.array(names),
        },
    )
    return Outcome(len(taken), rejected)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _read_rejected(output: Path) -> list[tuple[str, str]]:
    with (output / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return [(row[0], row[1]) for row in csv.reader(file)][1:]
