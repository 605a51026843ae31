"""The folder that holds training data: crops, skin weights, landmarks, and the truth where it is known.

dataset.json     what it is; written last, so that a folder without it is unfinished
settings.json    what it is made with, to refuse a resumption with other settings
images/NNNNNN.jpg, skin/NNNNNN.png, samples.npz (no pickle)
parts/           what is done of an unfinished folder
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from facefit.errors import InputError
from facefit.model.atomic import write_bytes, write_text

VERSION = 2
TRAIN, VALIDATION, TEST, UNSEEN = 0, 1, 2, 3
SPLITS = ("train", "validation", "test")
TRUTH = ("identity", "expression", "albedo", "lighting", "rotation", "translation", "focal")
# How far a graded synthetic photograph is spoiled: turned away and blurred (`facefit.synthesis.grading`), and
# the share of its skin that is hidden.
GRADES = ("turned", "hidden", "blurred")
_MAX_BYTES = 4_000_000_000


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set as read: everything but the pictures, which `read_sample` reads one at a time.

    Attributes:
        folder: where it lies.
        facts: dataset.json: version, kind ("photographs", "fitted photographs" or "synthetic"), size S, and
            for the last two the model and its coefficient counts; for fitted ones how much of the identity
            that the fits found is to be believed, identity_kept.
        landmarks: (N, 68, 2) crop pixels. landmark_weight: (N, 68).
        dense: the points that our detector finds, which an encoder may be told, crop pixels, (N, 468, 3).
        subject: (N,). split: (N,), see SPLITS; UNSEEN where the detector finds no face.
        source: where each sample is from, (N,).
        truth: the arrays named in TRUTH, (N, ...): known, or what a fit found; empty for photographs.
        grades: the arrays named in GRADES, (N,); empty but for graded synthetic photographs.
    """

    folder: Path
    facts: dict[str, Any]
    landmarks: Float[np.ndarray, "N 68 2"]
    landmark_weight: Float[np.ndarray, "N 68"]
    dense: Float[np.ndarray, "N 468 3"]
    subject: Int[np.ndarray, " N"]
    split: Int[np.ndarray, " N"]
    source: np.ndarray
    truth: dict[str, np.ndarray]
    grades: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether its coefficients are known."""
        return bool(self.truth)

    @property
    def identity_kept(self) -> float:
        """The share of `truth["identity"]` to learn: all of what is known, part of what fits found."""
        return float(self.facts.get("identity_kept", 1.0))


def split_of(subject: int) -> int:
    """Every twentieth person is for validation, another for the test; 90 % are for training."""
    return {18: VALIDATION, 19: TEST}.get(subject % 20, TRAIN)


def write_sample(folder: Path, index: int, image: UInt8[np.ndarray, "S S 3"], skin: np.ndarray) -> None:
    """Writes a sample's sRGB crop (JPEG, quality 95) and its skin weight (uint8, PNG)."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), quality)[1]
    write_bytes(folder / "images" / f"{index:06d}.jpg", jpeg.tobytes())
    write_bytes(folder / "skin" / f"{index:06d}.png", cv2.imencode(".png", skin)[1].tobytes())


def read_sample(folder: Path, index: int) -> tuple[UInt8[np.ndarray, "S S 3"], UInt8[np.ndarray, "S S"]]:
    """A sample's sRGB crop and skin weight.

    Raises:
        InputError: a file is missing or damaged.
    """
    decoded = []
    for name, flag in (
        (f"images/{index:06d}.jpg", cv2.IMREAD_COLOR),
        (f"skin/{index:06d}.png", cv2.IMREAD_GRAYSCALE),
    ):
        try:
            picture = cv2.imdecode(np.frombuffer((folder / name).read_bytes(), np.uint8), flag)
        except (OSError, cv2.error):
            picture = None
        if picture is None:
            raise InputError(f"{folder / name}: missing or damaged. Make the data set again.")
        decoded.append(picture)
    return np.ascontiguousarray(decoded[0][..., ::-1]), decoded[1]


def begin(folder: Path, settings: dict[str, Any]) -> bool:
    """Makes the folder, or takes up an unfinished one; False where it is finished already.

    Raises:
        InputError: it was begun with other settings, or holds something else, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, but a data set needs a folder. Give another name after -o.")
    file = folder / "settings.json"
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        differences = [
            f"{name}: {before.get(name)!r} then, {settings.get(name)!r} now"
            for name in sorted(before | settings)
            if before.get(name) != settings.get(name)
        ]
        if differences:
            raise InputError(
                f"{folder}: was begun with other settings ({'; '.join(differences)}). "
                "Give the same ones to go on, or another folder after -o."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty and holds no data set. Give another folder after -o.")
    try:
        for name in ("images", "skin", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({error.strerror}). Give another folder after -o."
        ) from None
    write_text(file, json.dumps(settings, indent=1, sort_keys=True))
    if (folder / "dataset.json").is_file():
        shutil.rmtree(folder / "parts")
        return False
    return True


def write_part(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Keeps what is known of a few samples until all are there."""
    write_bytes(folder / "parts" / f"{name}.npz", _npz(arrays))


def read_part(folder: Path, name: str) -> dict[str, np.ndarray] | None:
    """What `write_part` kept, or None."""
    file = folder / "parts" / f"{name}.npz"
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def finish(folder: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes samples.npz and dataset.json, and removes the parts."""
    write_bytes(folder / "samples.npz", _npz(arrays))
    counts = {name: int((arrays["split"] == k).sum()) for k, name in enumerate(SPLITS)}
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    facts = {"version": VERSION} | facts | {"samples": counts, "settings": settings}
    write_text(folder / "dataset.json", json.dumps(facts, indent=1))
    shutil.rmtree(folder / "parts", ignore_errors=True)
    for stray in folder.glob("*/.*"):  # of a process that was killed while it wrote
        stray.unlink()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_dataset(folder: str | Path) -> Dataset:
    """A finished data set.

    Raises:
        InputError: it is missing, unfinished, of another version, or damaged; the message says which.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        if (folder / "samples.npz").stat().st_size > _MAX_BYTES:
            raise InputError(f"{folder / 'samples.npz'}: larger than any data set of ours. Make it again.")
        with np.load(folder / "samples.npz", allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        advice = "no data set. Make one with `facefit prepare` or `facefit synth`."
        if (folder / "settings.json").is_file():
            advice = (
                "an unfinished data set. Run the command that makes it again; it goes on where it stopped."
            )
        raise InputError(f"{folder}: {advice}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{folder}: the data set is damaged ({error}). Make it again.") from None
    if facts.get("version") != VERSION:
        found = facts.get("version")
        raise InputError(f"{folder}: of version {found}, this facefit reads {VERSION}. Make it again.")
    count = len(arrays.get("landmarks", ()))
    wanted = {"landmarks": (count, 68, 2), "landmark_weight": (count, 68), "dense": (count, 468, 3)}
    wanted |= {name: (count,) for name in ("subject", "split", "source")}
    for name, shape in wanted.items():
        if name not in arrays or arrays[name].shape != shape:
            raise InputError(
                f"{folder / 'samples.npz'}: `{name}` is missing or not of shape {shape}. Make it again."
            )
    truth, grades = ({name: arrays[name] for name in names if name in arrays} for names in (TRUTH, GRADES))
    if any(len(values) != count for values in (truth | grades).values()):
        raise InputError(f"{folder / 'samples.npz'}: its arrays differ in length. Make it again.")
    return Dataset(folder, facts, *(arrays[name] for name in wanted), truth, grades)
