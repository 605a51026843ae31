"""Photographs of graded quality: turned away, covered, blurred, from not at all to hardly usable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facefit.synthesis import covers

_YAW = 75.0  # degrees; further round the detector finds no face
_COVERED = 0.7  # of the skin in sight
_BLUR, _NOISE = 5.0 / 192, 0.08  # standard deviations: of the crop's side, of sRGB
_TRIES = 12  # things laid over a face, at most


class Grade(NamedTuple):
    """How far a photograph is spoiled in each way, in [0, 1]: 0 not at all, 1 as far as it gets."""

    turned: float
    covered: float
    blurred: float


def random_grade(person: Sequence[int], picture: int, pictures: int) -> Grade:
    """The grade of one of a person's pictures: each person has good and bad ones, evenly spread, spoiled in
    one way or in several.

    A pure function of the person's key and the picture's number.
    """
    rng = np.random.default_rng([*person, 2])
    order = rng.permutation(pictures)
    bad = order[picture] / max(pictures - 1, 1)
    rng = np.random.default_rng([*person, 3, picture])
    ways = rng.permutation(3) < rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])
    return Grade(*(float(level) for level in bad * rng.uniform(0.7, 1.0, 3) * ways))


def graded_yaw(rng: np.random.Generator, grade: Grade) -> float:
    """Degrees: to either side as far as the grade says, and as far as anyone turns in a good portrait."""
    return float(rng.choice([-1, 1]) * _YAW * grade.turned + np.clip(rng.normal(0, 6), -12, 12))


def cover(
    rng: np.random.Generator,
    picture: Float[np.ndarray, "S S 3"],
    skin: Float[np.ndarray, "S S"],
    bare: Float[np.ndarray, "S S"],
    pixels: Float[np.ndarray, "68 2"],
    brightness: float,
    grade: Grade,
) -> tuple[np.ndarray, np.ndarray]:
    """Lays things and hands over the face until the grade's share of its skin is hidden, about.

    Args:
        picture: linear RGB. skin: in sight. bare: skin that would be without what lies over it already.
        pixels: the iBUG points. brightness: of the light.

    Returns:
        the picture, and the skin left in sight.
    """
    whole, wanted = max(float(bare.sum()), 1.0), _COVERED * grade.covered
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    clear = skin > 0.7
    tone = picture[clear].mean(0) if clear.sum() > 50 else np.array([0.4, 0.25, 0.2])
    size = len(picture)
    for _ in range(_TRIES):
        if 1 - float(skin.sum()) / whole >= wanted - 0.05:
            break
        hand = rng.random() < 0.3
        layer = covers.hand(rng, size, box, tone) if hand else covers.thing(rng, size, box, brightness)
        trial = covers.over(picture, layer, skin)
        if 1 - float(trial[1].sum()) / whole <= wanted + 0.1:
            picture, skin = trial
    return picture, skin


def blur(
    rng: np.random.Generator, image: UInt8[np.ndarray, "S S 3"], grade: Grade
) -> UInt8[np.ndarray, "S S 3"]:
    """Out of focus, then noisy; sRGB, as cameras give it."""
    if grade.blurred <= 0:
        return image
    soft = cv2.GaussianBlur(image.astype(np.float32), None, max(grade.blurred * _BLUR * len(image), 0.1))
    noisy = soft + 255 * _NOISE * grade.blurred * rng.standard_normal(image.shape)
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
