"""A photograph file becomes a `Photograph`: pixels, focal length, the chosen face and its landmarks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from facefit.errors import PhotoError
from facefit.photo import detect, dlib68, face_mesh, landmark_files
from facefit.photo.read import read_pixels
from facefit.photo.records import FaceFound, Photograph

_SMALL = 60  # pixels; in a smaller face the landmarks are good to little more than a pixel
_DOUBTFUL = 0.9


def read_photograph(
    path: str | Path, face: str = "largest", landmarks: str | Path | np.ndarray | None = None
) -> Photograph:
    """Read a photograph, find its faces, choose one and find its landmarks.

    Args:
        path: any picture file that `read_pixels` reads.
        face: "largest"; "N", the N-th face from the left, counted from 1; or "x,y", the face nearest that
            pixel (0,0 the first one).
        landmarks: a landmark file of the user's for this photograph, see `landmark_files.read_landmarks`, or
            what that returns; then `face` has no say, the points tell which face is meant.

    Raises:
        InputError: the file, the choice or the landmark file is not usable.
        PhotoError: the picture is damaged, or no face is found in it.
    """
    pixels, focal = read_pixels(path)
    if landmarks is not None:
        return _with_user_landmarks(path, pixels, focal, landmarks)
    faces = detect.find_faces(pixels)
    if not faces:
        raise PhotoError(
            f"{path}: no face was found. "
            "Crop the picture around the face, or give its landmarks with --landmarks."
        )
    chosen = detect.choose(pixels, faces, face)
    points68 = dlib68.landmarks68(pixels, chosen.landmarks)
    return Photograph(
        path=str(path),
        pixels=pixels,
        exif_focal_px=focal,
        box=chosen.box,
        landmarks468=chosen.landmarks,
        landmarks68=points68,
        landmarks68_source=None if points68 is None else "dlib",
        face_score=chosen.score,
        warnings=tuple(_warnings(faces, chosen, face)),
        scatter468=chosen.scatter,
    )


def _warnings(faces: list[FaceFound], chosen: FaceFound, choice: str) -> list[str]:
    """What a user should know about the face that was taken."""
    sentences = []
    if len(faces) > 1 and choice == "largest":
        taken = 1 + next(i for i, f in enumerate(faces) if f is chosen)
        middles = [((f.box[0] + f.box[2]) / 2, (f.box[1] + f.box[3]) / 2) for f in faces]
        places = ", ".join(f"{i + 1} at {x:.0f},{y:.0f}" for i, (x, y) in enumerate(middles))
        sentences.append(
            f"{len(faces)} faces were found ({places}); the largest, {taken}, is taken. Another: --face N."
        )
    if chosen.size < _SMALL:
        sentences.append(f"The face is only {chosen.size:.0f} pixels large; the result will be rough.")
    if chosen.score < _DOUBTFUL:
        sentences.append(f"The face is hard to make out (score {chosen.score:.2f} of 1); check the overlay.")
    return sentences


def _with_user_landmarks(path, pixels: np.ndarray, focal: float | None, file: str | Path) -> Photograph:
    """The photograph with the user's points; the network's are found around them, and kept where it sees that
    face.
    """
    if isinstance(file, np.ndarray):
        points, file = file, path
    else:
        points = landmark_files.read_landmarks(file)
    landmark_files.check_inside(file, points, (pixels.shape[1], pixels.shape[0]))
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    found, scores = detect.refine(pixels, [_square_around(points)])
    dense, scatter, logit = face_mesh.averaged_landmarks(pixels, found[0])
    score = face_mesh.probability(min(logit, float(scores[0])))
    offset = np.linalg.norm(dense[:, :2].mean(0) - points[:, :2].mean(0))
    seen = score >= detect.MIN_SCORE and offset < 0.4 * (high - low).max()
    photograph = Photograph(
        path=str(path),
        pixels=pixels,
        exif_focal_px=focal,
        box=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        landmarks468=dense if seen else None,
        landmarks68=points if len(points) == 68 else None,
        landmarks68_source="user" if len(points) == 68 else None,
        face_score=score if seen else 0.0,
        warnings=()
        if seen
        else (f"The dense network sees no face at the points of {file}; only these are used.",),
        scatter468=scatter if seen else None,
    )
    if len(points) == 468:
        depth = (
            points[:, 2:]
            if points.shape[1] == 3
            else dense[:, 2:]
            if seen
            else np.zeros((468, 1), np.float32)
        )
        points = np.concatenate([points[:, :2], depth], 1).astype(np.float32)
        return replace(photograph, landmarks468=points, scatter468=None)
    return photograph


def _square_around(points: np.ndarray) -> face_mesh.Square:
    """Where the network should look for the face of the user's points."""
    if len(points) == 468:
        return face_mesh.square_of(points)
    eyes, down = points[45] - points[36], points[8] - points[27]
    angle = float(np.arctan2(eyes[1] - down[0], eyes[0] + down[1]))
    middle = (points.min(0) + points.max(0)) / 2
    # The 68 points end at the brows, the network's box above the forehead: the square is larger and shifted
    # up.
    size = float(np.ptp(points, axis=0).max())
    up = 0.1 * size * np.array([np.sin(angle), -np.cos(angle)])
    center = middle + up
    return face_mesh.Square((float(center[0]), float(center[1])), 1.2 * size * face_mesh.MARGIN, angle)
