"""One photograph's sample: the face found or taken from its landmarks, checked, cut out, its skin weighed."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facefit.encoder.landmarks import MOST_APART, ibug_points, on_face
from facefit.encoder.photo_sources import Source
from facefit.errors import InputError, PhotoError
from facefit.photo import Photograph, read_photograph, skin_weight
from facefit.photo.cropping import square_to_photo, warp
from facefit.photo.face_crop import NETWORK_SHARE, face_square, stored_crop
from facefit.photo.landmark_files import read_landmarks

_LEAST_SCORE = 0.8  # of the detector, without landmarks of the data set's own
# Standard deviation of the Laplacian over that of the picture, around the face at 128 px: below it the face
# is out of focus or was enlarged from next to nothing. Sharp portraits have 0.11 to 0.31, the same with a
# Gaussian blur of 2 px at that size 0.036 to 0.066, video stills 0.06 to 0.4.
_LEAST_SHARPNESS = 0.045
_LEAST_INSIDE = 0.8  # of the network's crop that must lie inside the photograph
_HIDDEN_JAW = 0.25  # weight of jaw points on the far side of a turned head
_JAW_SLIDES = 0.05  # of the face: how far a jaw point may lie from the surface's and still half count
_WIDEN = 1.08  # the outline of the dense points, which bounds what may be skin of this face


@dataclasses.dataclass(frozen=True)
class PhotoSample:
    """A face as a data set stores it.

    Attributes:
        image: sRGB. skin: 255 = all of the pixel. landmarks: the iBUG points, crop pixels.
        landmark_weight: how far to trust each, in [0, 1].
        dense: what our detector finds, crop pixels.
        digest: of the photograph's pixels and the face's place, the same for copies.
    """

    image: UInt8[np.ndarray, "S S 3"]
    skin: UInt8[np.ndarray, "S S"]
    landmarks: Float[np.ndarray, "68 2"]
    landmark_weight: Float[np.ndarray, " 68"]
    dense: Float[np.ndarray, "468 3"]
    digest: str


def photo_sample(source: Source, size: int, min_face: int) -> PhotoSample:
    """Reads a photograph and cuts its face out.

    Args:
        size: S, side of the crop in pixels. min_face: least size of the face in the photograph, pixels.

    Raises:
        InputError, PhotoError: it cannot be read, shows no face, or the face is too small, cut off, out of
            focus or not where its landmarks are.
    """
    if source.problem:
        raise InputError(source.problem)
    photograph, points, weight = _landmarks(source)
    extent = float(np.ptp(points, axis=0).max())
    if extent < min_face:
        raise PhotoError(f"the face is too small ({extent:.0f} px, at least {min_face})")
    inside = _share_inside(points, photograph.pixels.shape)
    if inside < _LEAST_INSIDE:
        raise PhotoError(f"the face is cut off ({100 * inside:.0f} % of its surroundings are there)")
    matrix = stored_crop(points, size)
    image = warp(photograph.pixels, matrix, size)
    to_crop = np.linalg.inv(matrix)
    landmarks = (points @ to_crop[:2, :2].T + to_crop[:2, 2]).astype(np.float32)
    sharpness = _sharpness(photograph.pixels, points)
    if sharpness < _LEAST_SHARPNESS:
        raise PhotoError(f"the face is out of focus (sharpness {sharpness:.3f}, at least {_LEAST_SHARPNESS})")
    dense = photograph.landmarks468 * np.float32([1, 1, to_crop[0, 0]])
    dense[:, :2] = dense[:, :2] @ to_crop[:2, :2].T + to_crop[:2, 2]
    valid = warp(np.ones(photograph.pixels.shape[:2], np.float32), matrix, size, border=cv2.BORDER_CONSTANT)
    skin = skin_weight(image, dense[:, :2]) * _face_region(dense[:, :2], size) * valid
    digest = hashlib.sha256(photograph.pixels.tobytes() + points.round().tobytes()).hexdigest()[:16]
    return PhotoSample(image, np.round(skin * 255).astype(np.uint8), landmarks, weight, dense, digest)


def _landmarks(source: Source) -> tuple[Photograph, Float[np.ndarray, "68 2"], Float[np.ndarray, " 68"]]:
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
        if np.median(apart) > MOST_APART * np.ptp(found, axis=0).max():
            raise PhotoError("the face found is not the one that its landmarks mean, or they are far off")
        weight = np.where(source.known, 1.0, 0.5 * _trust(found, found))
        return (
            photograph,
            np.where(source.known[:, None], given, found).astype(np.float32),
            weight.astype(np.float32),
        )
    photograph = read_photograph(source.picture, landmarks=given)
    if photograph.landmarks468 is None:
        raise PhotoError("no face is seen where its landmarks are")
    surface = ibug_points(photograph.landmarks468)
    if not on_face(surface, given):
        raise PhotoError("its landmarks do not lie on the face that the detector sees there")
    return photograph, given.astype(np.float32), _trust(given, surface)


def _face_choice(source: Source) -> str:
    """Which face of the picture: the largest, or the one around the points that are known."""
    if source.known is None:
        return "largest"
    x, y = source.landmarks[source.known].mean(0) - 0.5
    return f"{x},{y}"


def _trust(points: Float[np.ndarray, "68 2"], surface: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, " 68"]:
    """Weights of landmarks: jaw points that are hidden, or that slid along the outline of a turned head (as
    the 2D schemes have them) away from the surface's points, tell less."""
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


def _face_region(dense: Float[np.ndarray, "468 2"], size: int) -> Float[np.ndarray, "S S"]:
    """Where this face can be, softly: colour alone cannot tell it from hands, necks and wooden walls."""
    hull = cv2.convexHull(dense.astype(np.float32))[:, 0]
    middle = hull.mean(0)
    mask = np.zeros((size, size), np.float32)
    widened = middle + _WIDEN * (hull - middle)
    cv2.fillPoly(mask, [np.round((widened - 0.5) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return np.clip(cv2.GaussianBlur(mask, None, size / 96), 0, 1)
