"""What lies in a folder of photographs: pictures, who is on them, and landmarks that came with them."""

from __future__ import annotations

import csv
import dataclasses
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from facefit.errors import InputError
from facefit.photo.landmark_files import ENDINGS

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
Grouping = Literal["auto", "folder", "name", "each"]

# AFLW's names of its points ("left" is the picture's left), and the iBUG points that are the same places.
_AFLW = {
    "LeftBrowLeftCorner": 17, "LeftBrowCenter": 19, "LeftBrowRightCorner": 21, "RightBrowLeftCorner": 22,
    "RightBrowCenter": 24, "RightBrowRightCorner": 26, "LeftEyeLeftCorner": 36, "LeftEyeRightCorner": 39,
    "RightEyeLeftCorner": 42, "RightEyeRightCorner": 45, "NoseLeft": 31, "NoseCenter": 30, "NoseRight": 35,
    "MouthLeftCorner": 48, "MouthRightCorner": 54, "ChinCenter": 8,
}  # fmt: skip
_AFLW_QUERY = """
    SELECT FaceImages.filepath, Faces.face_id, FeatureCoordTypes.descr, FeatureCoords.x, FeatureCoords.y
    FROM Faces JOIN FaceImages ON Faces.file_id = FaceImages.file_id
    JOIN FeatureCoords ON FeatureCoords.face_id = Faces.face_id
    JOIN FeatureCoordTypes ON FeatureCoordTypes.feature_id = FeatureCoords.feature_id
    ORDER BY Faces.face_id
"""
_LEAST_AFLW = 5  # points that tell which face is meant, and where


@dataclasses.dataclass(frozen=True)
class Source:
    """One face to be prepared.

    Attributes:
        picture: the file.
        name: for reports, unique: the file's path, with the face's number where a picture has several.
        person: the same for photographs of one person.
        landmarks: a file of 68 points beside the picture, or the points themselves, (68, 2) px with the first
            pixel's centre at (.5, .5); None where the detector must find them.
        known: which of those points are given, (68,); None means all.
        problem: what is wrong with the landmarks that came with it; such a source is rejected.
    """

    picture: Path
    name: str
    person: str
    landmarks: Path | Float[np.ndarray, "68 2"] | None = None
    known: Bool[np.ndarray, "68"] | None = None
    problem: str = ""


def find_sources(folder: Path, grouping: Grouping) -> tuple[list[Source], list[tuple[str, str]]]:
    """The faces of a folder, sorted by name, and (name, reason) of annotations that belong to no picture.

    Landmarks are taken from a file of the picture's name ending in .pts, .mat, .npy or .json beside it, from
    CSV files anywhere in the folder (a row: the file's name, then x0, y0 ... x67, y67), or from an AFLW
    SQLite file. In CSV files and in AFLW the first pixel's centre is (0, 0).

    Raises:
        InputError: the folder is missing or holds no pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give a folder of photographs.")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    if not pictures:
        raise InputError(f"{folder}: holds no photographs ({', '.join(PICTURES)}). Give another folder.")
    persons = _persons(folder, pictures, grouping)
    orphans: list[tuple[str, str]] = []
    by_name: dict[str, list[Path]] = {}
    for path in pictures:
        by_name.setdefault(path.name, []).append(path)
    table: dict[Path, list[tuple[str, np.ndarray | None, np.ndarray | None, str]]] = {}
    for path in files:
        rows: Iterable = ()
        if path.suffix.lower() == ".csv":
            rows = _csv_rows(path)
        elif path.suffix.lower() in (".sqlite", ".sqlite3", ".db"):
            rows = _aflw_rows(path)
        for file, label, points, known, problem in rows:
            found = _picture(path.parent, file, by_name)
            if isinstance(found, Path):
                table.setdefault(found, []).append((label, points, known, problem))
            else:
                orphans.append((f"{path}: {file}", found))
    sources = []
    for path in pictures:
        beside = next((p for end in ENDINGS if (p := path.with_suffix(end)).is_file()), None)
        faces = table.get(path)
        if beside is not None or not faces:
            sources.append(Source(path, str(path), persons[path], beside))
            continue
        for label, points, known, problem in faces:
            several = len(faces) > 1
            name = f"{path}#{label}" if several else str(path)
            person = f"{persons[path]}#{label}" if several else persons[path]
            sources.append(Source(path, name, person, points, known, problem))
    return sources, orphans


def _persons(folder: Path, pictures: list[Path], grouping: Grouping) -> dict[Path, str]:
    """Who is on each picture, as the names of folders or files say."""
    parents = {path.parent for path in pictures}
    if grouping == "auto":
        grouping = "folder" if len(parents) > 1 and folder not in parents else "name"
    out = {}
    for path in pictures:
        inside = path.relative_to(folder).with_suffix("")
        if grouping == "folder":
            key = inside.parent.as_posix()
        elif grouping == "name":
            # A number after a separator counts the photographs of one person.
            key = re.sub(r"[ _.\-]+\(?\d+\)?$", "", inside.as_posix()) or inside.as_posix()
        else:
            key = inside.as_posix()
        out[path] = f"{folder.name}/{key}"
    return out


def _picture(base: Path, file: str, by_name: dict[str, list[Path]]) -> Path | str:
    """The picture that an annotation means, or why there is none."""
    relative = (base / file).resolve()
    same = by_name.get(Path(file).name, [])
    for path in same:
        if path.resolve() == relative:
            return path
    ending = [path for path in same if path.as_posix().endswith("/" + file.lstrip("/"))] or same
    if len(ending) == 1:
        return ending[0]
    return (
        "no such picture"
        if not ending
        else f"{len(ending)} pictures have this name; give the path in the file"
    )


def _csv_rows(path: Path) -> Iterable[tuple[str, str, np.ndarray | None, None, str]]:
    """Rows of a landmark table; nothing of a table of other things."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return
    wide = [row for row in rows if len(row) == 137]
    if 2 * len(wide) < len(rows) and "landmark" not in path.stem.lower():
        return
    for number, row in enumerate(rows):
        name, values = row[0].strip(), row[1:]
        try:
            points = np.array(values, np.float64)
        except ValueError:
            points = None
        if number == 0 and (points is None or Path(name).suffix.lower() not in PICTURES):
            continue  # the head of the table
        label = str(number)
        if points is None or points.size != 136 or not np.isfinite(points).all():
            problem = (
                f"line {number + 1} of {path} holds {len(values)} values, not the 136 numbers of 68 points"
            )
            yield name, label, None, None, problem
        else:
            yield (name, label, (points.reshape(68, 2) + 0.5).astype(np.float32), None, "")


def _aflw_rows(path: Path) -> Iterable[tuple[str, str, np.ndarray, np.ndarray, str]]:
    """Faces of an AFLW database, opened read-only."""
    faces: dict[tuple[str, int], list[tuple[int, float, float]]] = {}
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            for file, face, kind, x, y in connection.execute(_AFLW_QUERY):
                if kind in _AFLW and isinstance(x, (int, float)) and isinstance(y, (int, float)):
                    faces.setdefault((str(file), int(face)), []).append((_AFLW[kind], float(x), float(y)))
        finally:
            connection.close()
    except (sqlite3.Error, ValueError, TypeError):
        return
    for (file, face), marks in faces.items():
        points, known = np.zeros((68, 2), np.float32), np.zeros(68, bool)
        for index, x, y in marks:
            points[index], known[index] = (x + 0.5, y + 0.5), True
        few = f"AFLW has only {known.sum()} points of this face that iBUG has too, {_LEAST_AFLW} are needed"
        yield file, str(face), points, known, few if known.sum() < _LEAST_AFLW else ""
