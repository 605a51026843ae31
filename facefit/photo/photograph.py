"""A photograph file becomes a `Photograph`: pixels, focal length, the chosen face and its landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facefit.errors import PhotoError
from facefit.photo import detect, face_mesh
from facefit.photo.read import read_pixels
from facefit.photo.records import Photograph


def read_photograph(
    path: str | Path, face: str = "largest", landmarks: str | Path | None = None
) -> Photograph:
    """Read a photograph, find its faces, choose one and find its landmarks.

    Args:
        path: any picture file that `read_pixels` reads.
        face: "largest"; "N", the N-th face from the left, counted from 1; or "x,y", the face nearest that pixel.
        landmarks: a landmark file of the user's for this photograph, see `landmark_files.read_landmarks`.

    Raises:
        InputError: the file, the choice or the landmark file is not usable.
        PhotoError: the picture is damaged, or no face is found in it.
    """
    pixels, focal = read_pixels(path)
    faces = detect.find_faces(pixels)
    if not faces:
        raise PhotoError(
            f"{path}: no face was found. Crop the picture around the face, or give its landmarks with --landmarks."
        )
    chosen = detect.choose(pixels, faces, face)
    points, score = dense_landmarks(pixels, chosen.landmarks)
    return Photograph(
        path=str(path),
        pixels=pixels,
        exif_focal_px=focal,
        box=chosen.box,
        landmarks468=points,
        landmarks68=None,
        landmarks68_source=None,
        face_score=score,
        warnings=(),
    )


def dense_landmarks(pixels: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """The 468 points found again in one more look around known ones, and the face score."""
    found, scores = face_mesh.landmarks(pixels, [face_mesh.square_of(points)])
    return found[0], float(scores[0])
