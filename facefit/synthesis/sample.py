"""One random photograph of a random person, with everything known about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facefit.photo.face_crop import CROP_FOCAL, FACE_SHARE, NETWORK_SHARE
from facefit.synthesis import grading
from facefit.synthesis.composition import View, compose
from facefit.synthesis.expressions import random_distance, random_expression, random_rotation
from facefit.synthesis.lights import Light, random_light
from facefit.synthesis.person import hair_style, random_person
from facefit.synthesis.rendering import Head, draw, landmarks_of

_LAMPS = 3


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known of a synthetic photograph, in the shapes and units of `facefit.model.Parameters`.

    Attributes:
        rotation, translation: in the crop's own camera (`CROP_FOCAL`); a picture taken from nearer or further
            away has the pose that puts its face in the same place at the same size.
        focal: the focal length the picture was taken with, pixels of this picture; its true depth is
            translation[2] * focal / (CROP_FOCAL * NETWORK_SHARE * size).
    """

    identity: Float[np.ndarray, " I"]
    expression: Float[np.ndarray, " E"]
    albedo: Float[np.ndarray, " A"]
    lighting: Float[np.ndarray, "9 3"]
    rotation: Float[np.ndarray, "3"]
    translation: Float[np.ndarray, "3"]
    focal: float


@dataclasses.dataclass(frozen=True)
class SyntheticPhoto:
    """A crop as a data set stores it.

    Attributes:
        image: sRGB. skin: uncovered skin and lips of the face (no ears, no neck), 255 = all of the pixel.
        landmarks: the iBUG points, crop pixels, first pixel's centre at (.5, .5).
        hidden: share of the face's skin that things lie over.
    """

    image: UInt8[np.ndarray, "S S 3"]
    skin: UInt8[np.ndarray, "S S"]
    landmarks: Float[np.ndarray, "68 2"]
    truth: Truth
    hidden: float


def random_photo(
    head: Head,
    person: Sequence[int],
    picture: Sequence[int],
    size: int,
    grade: grading.Grade | None = None,
) -> SyntheticPhoto:
    """A photograph of a random person: a pure function of its two keys.

    Args:
        head: from `prepare_head`.
        person: seeds identity, albedo, skin detail, hair colour, beard.
        picture: seeds expression, pose, camera, light, hair style, what covers the face, background.
        size: S, side of the crop in pixels; the face takes the part of it that `face_crop` says.
        grade: how far it is spoiled; None leaves pose and covers to chance.
    """
    who = random_person(head, tuple(person))
    rng = np.random.default_rng([*person, 1, *picture])
    model = head.model
    grey = bool(rng.random() < 0.05)
    light = random_light(rng, grey)
    expression = random_expression(
        rng, model.expression_names, model.expression_basis.shape[0], model.expression_is_blendshape
    )
    rotation = random_rotation(rng, None if grade is None else grading.graded_yaw(rng, grade))
    marks = np.asarray(landmarks_of(head.marks, who.identity, expression))
    translation, focal = _camera(marks, rotation, random_distance(rng), size)
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float32)
    turn = _matrix(rotation)

    def to_pixels(points: np.ndarray) -> np.ndarray:
        placed = (np.asarray(points) * [1, -1, -1]) @ turn.T + translation
        return placed[:, :2] * focal / np.maximum(placed[:, 2:], 1.0) + size / 2

    hair = hair_style(rng, head, who)
    truth = {
        "identity": who.identity, "expression": expression, "albedo": who.albedo, "rotation": rotation,
        "translation": translation.astype(np.float32), "lighting": light.lighting,
        "shadow": np.float32(rng.uniform(0.3, 1.0)), "ambient": np.float32(light.ambient),
        "gloss": np.float32(rng.uniform(0.0, 0.16)), "gloss_power": np.float32(rng.uniform(8, 35)),
    } | _lamps(light)  # fmt: skip
    drawn = {
        name: np.asarray(values)
        for name, values in draw(model, head.arrays, truth, hair, matrix, size).items()
    }
    view = View(
        size,
        marks,
        to_pixels,
        yaw=float(np.arctan2(turn[0, 2], turn[2, 2])),
        unit=focal / translation[2],
        brightness=float(light.lighting[0].mean()),
        grey=grey,
    )
    linear, skin, bare = compose(rng, who, view, drawn)
    if grade is not None:
        linear, skin = grading.cover(rng, linear, skin, bare, to_pixels(marks), view.brightness, grade)
    image = _to_bytes(linear)
    nearer = CROP_FOCAL * NETWORK_SHARE * size / focal
    return SyntheticPhoto(
        image=image if grade is None else grading.blur(rng, image, grade),
        skin=np.round(np.clip(skin, 0, 1) * 255).astype(np.uint8),
        landmarks=to_pixels(marks).astype(np.float32),
        truth=Truth(
            who.identity,
            expression,
            who.albedo,
            light.lighting,
            rotation,
            (translation * [1, 1, nearer]).astype(np.float32),
            float(focal),
        ),
        hidden=1 - float(skin.sum()) / max(float(bare.sum()), 1.0),
    )


def _matrix(rotation: np.ndarray) -> np.ndarray:
    return cv2.Rodrigues(rotation.astype(float))[0]


def _camera(marks: np.ndarray, rotation: np.ndarray, distance: float, size: int) -> tuple[np.ndarray, float]:
    """Translation and focal length that put the points' box into the middle of the crop at its set size."""
    turned = (marks * [1, -1, -1]) @ _matrix(rotation).T
    translation = np.array([0, 0, distance]) - turned.mean(0)
    focal, wanted = size * distance / 300.0, FACE_SHARE * NETWORK_SHARE * size
    for _ in range(8):
        placed = turned + translation
        pixels = placed[:, :2] * focal / placed[:, 2:]
        low, high = pixels.min(0), pixels.max(0)
        focal *= wanted / (high - low).max()
        translation[:2] -= (low + high) / 2 * distance / focal
    return translation, float(focal)


def _lamps(light: Light) -> dict[str, np.ndarray]:
    directions, strengths = (np.zeros((_LAMPS, 3), np.float32), np.zeros(_LAMPS, np.float32))
    directions[:, 2] = -1
    directions[: len(light.directions)] = light.directions
    strengths[: len(light.strengths)] = light.strengths
    return {"lamp_directions": directions, "lamp_strengths": strengths}


def _to_bytes(linear: np.ndarray) -> np.ndarray:
    """sRGB bytes; light above one is compressed a little before it clips, as cameras do."""
    linear = np.where(linear > 0.8, 0.8 + 0.35 * (1 - np.exp(-(linear - 0.8) / 0.35)), linear)
    return _SRGB[np.clip(linear * 4095 + 0.5, 0, 4095).astype(np.int32)]


def _table() -> np.ndarray:
    linear = np.arange(4096) / 4095
    srgb = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-6) ** (1 / 2.4) - 0.055
    )
    return np.round(srgb * 255).astype(np.uint8)


_SRGB = _table()
