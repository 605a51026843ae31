"""One random photograph of a random person, with everything known about it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facefit.photo.face_crop import CROP_FOCAL, FACE_SHARE, NETWORK_SHARE
from facefit.synthesis import covers, textures
from facefit.synthesis.expressions import random_distance, random_expression, random_rotation
from facefit.synthesis.lights import Light, random_light
from facefit.synthesis.rendering import MEMBERSHIPS, Head, draw, landmarks_of

_HAIR = [  # linear RGB of black, dark brown, brown, fair, red, grey and white hair, and how often
    ((0.010, 0.008, 0.007), 0.26), ((0.030, 0.018, 0.012), 0.24), ((0.075, 0.042, 0.025), 0.16),
    ((0.300, 0.190, 0.090), 0.12), ((0.160, 0.055, 0.020), 0.05), ((0.160, 0.155, 0.150), 0.10),
    ((0.450, 0.440, 0.430), 0.07),
]  # fmt: skip
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
    """

    image: UInt8[np.ndarray, "S S 3"]
    skin: UInt8[np.ndarray, "S S"]
    landmarks: Float[np.ndarray, "68 2"]
    truth: Truth


@dataclasses.dataclass(frozen=True)
class _Person:
    identity: np.ndarray
    albedo: np.ndarray
    hair_color: np.ndarray
    skin: np.ndarray
    brows: np.ndarray
    beard: float
    stubble: float
    bald: float
    wears_glasses: bool
    thickness: float


@functools.lru_cache(maxsize=4)
def _person(head: Head, key: tuple[int, ...]) -> _Person:
    """What all photographs of a person share."""
    rng = np.random.default_rng(key)
    model = head.model
    identity = rng.standard_normal(model.identity_basis.shape[0]).astype(np.float32)
    tones = np.clip(rng.standard_normal(model.albedo_basis.shape[0]), -2.0, 2.0).astype(np.float32)
    colors, shares = zip(*_HAIR, strict=True)
    color = np.array(colors[rng.choice(len(colors), p=np.array(shares) / sum(shares))])
    marks = np.asarray(head.marks.mean)
    kind = rng.random()
    return _Person(
        identity=identity,
        albedo=tones,
        hair_color=color * np.exp(0.25 * rng.standard_normal()),
        skin=textures.skin_chart(rng, marks),
        brows=textures.brow_chart(rng, marks),
        beard=rng.uniform(0.4, 0.95) if kind < 0.14 else 0.0,
        stubble=rng.uniform(0.1, 0.6) if 0.14 <= kind < 0.34 else 0.0,
        bald=rng.uniform(0.3, 1.0) if rng.random() < 0.13 else 0.0,
        wears_glasses=bool(rng.random() < 0.18),
        thickness=rng.uniform(4, 32),
    )


def random_photo(head: Head, person: Sequence[int], picture: Sequence[int], size: int) -> SyntheticPhoto:
    """A photograph of a random person: a pure function of its two keys.

    Args:
        head: from `prepare_head`.
        person: seeds identity, albedo, skin detail, hair colour, beard.
        picture: seeds expression, pose, camera, light, hair style, what covers the face, background.
        size: S, side of the crop in pixels; the face takes the part of it that `face_crop` says.
    """
    who = _person(head, tuple(person))
    rng = np.random.default_rng([*person, 1, *picture])
    model = head.model
    grey = bool(rng.random() < 0.05)
    light = random_light(rng, grey)
    expression = random_expression(
        rng, model.expression_names, model.expression_basis.shape[0], model.expression_is_blendshape
    )
    rotation = random_rotation(rng)
    marks = np.asarray(landmarks_of(head.marks, who.identity, expression))
    translation, focal = _camera(marks, rotation, random_distance(rng), size)
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float32)
    turn = _matrix(rotation)

    def to_pixels(points: np.ndarray) -> np.ndarray:
        placed = (np.asarray(points) * [1, -1, -1]) @ turn.T + translation
        return placed[:, :2] * focal / np.maximum(placed[:, 2:], 1.0) + size / 2

    hair = _hair(rng, head, who)
    truth = {
        "identity": who.identity, "expression": expression, "albedo": who.albedo, "rotation": rotation,
        "translation": translation.astype(np.float32), "lighting": light.lighting,
        "shadow": np.float32(rng.uniform(0.3, 1.0)), "ambient": np.float32(light.ambient),
        "gloss": np.float32(rng.uniform(0.0, 0.16)), "gloss_power": np.float32(rng.uniform(8, 35)),
    } | _lamps(light)  # fmt: skip
    drawn = draw(model, head.arrays, truth, hair, matrix, size)
    face, shell, nearer = (np.asarray(drawn[name]) for name in ("face", "hair", "nearer"))
    picture_rgb, skin = _compose(
        rng, who, light, size, face, shell, nearer, marks, to_pixels, turn, focal / translation[2], grey
    )
    unit = CROP_FOCAL * NETWORK_SHARE * size / focal
    return SyntheticPhoto(
        image=_to_bytes(picture_rgb),
        skin=np.round(np.clip(skin, 0, 1) * 255).astype(np.uint8),
        landmarks=to_pixels(marks).astype(np.float32),
        truth=Truth(
            who.identity,
            expression,
            who.albedo,
            light.lighting,
            rotation,
            (translation * [1, 1, unit]).astype(np.float32),
            float(focal),
        ),
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


def _hair(rng: np.random.Generator, head: Head, who: _Person) -> dict[str, np.ndarray]:
    """The style of a day: how far hair reaches over the head (millimetres) and how thick it is."""
    x, y, z = np.asarray(head.model.mean).T
    field = head.hair_reach + rng.normal(2, 5)
    style = rng.random()
    if rng.random() < 0.3:  # a fringe, or hair combed over one side of the forehead
        middle, side = rng.uniform(-40, 40), rng.choice([-1, 0, 1])
        shape = 1 / (1 + np.exp(-side * (x - middle) / 12)) if side else 1.0
        field = field + shape * rng.uniform(10, 42) * np.clip((y - 30) / 20, 0, 1) * np.clip(
            (z - 20) / 30, 0, 1
        )
    sides = np.clip((np.abs(x) - rng.uniform(38, 62)) / 14, 0, 1)
    back = np.clip((rng.uniform(-10, 45) - z) / 25, 0, 1)
    if style < 0.35:  # over the ears
        field = field + rng.uniform(15, 55) * np.maximum(sides, back) * np.clip((y + 60) / 30, 0, 1)
    elif style < 0.62:  # long
        field = field + 220 * np.maximum(sides * np.clip((60 - z) / 30, 0, 1), back)
    field = field - 90 * who.bald
    thickness = who.thickness * (0.4 + 0.6 * np.clip(field / 18, 0, 1)) * np.clip((field + 12) / 14, 0.05, 1)
    wave = sum(np.sin((x * a + y * b + z * c) / 22 + d) for a, b, c, d in rng.normal(0, 1, (3, 4)))
    thickness = (
        thickness * (1 + 0.12 * wave) + (8 if style < 0.62 else 0) * np.clip((20 - y) / 40, 0, 1.5) * sides
    )
    return {"field": field.astype(np.float32), "thickness": np.maximum(thickness, 0.5).astype(np.float32)}


def _compose(
    rng, who: _Person, light: Light, size, face, shell, nearer, marks, to_pixels, turn, unit, grey
) -> tuple[np.ndarray, np.ndarray]:
    """The linear picture, layer by layer from back to front, and the skin in sight."""
    color, highlight, coverage = (face[..., :3], face[..., 3:6], np.clip(face[..., -1], 0, 1))
    inside = 1 / np.maximum(coverage, 0.05)[..., None]
    place, lit = face[..., 6:9] * inside, np.maximum(face[..., 9:12] * inside, 0)
    member = dict(zip(MEMBERSHIPS, np.moveaxis(face[..., 12:-1] * inside, -1, 0), strict=True))
    brightness = float(light.lighting[0].mean())
    hair_color = who.hair_color.astype(np.float32)
    chart, edge = textures.hair_chart(rng)
    where, shell_where = textures.chart_of(place), textures.chart_of(shell[..., :3])
    hair_texture = textures.read_chart(cv2.merge([chart, edge]), where)

    on_skin = np.clip(member["skin"] + 0.3 * member["lips"], 0, 1)[..., None]
    color = color * (1 + on_skin * (textures.read_chart(who.skin, where) - 1))
    brows = textures.read_chart(who.brows, where) * np.clip(member["skin"] + member["brows"], 0, 1)
    own_hair = hair_color * lit * coverage[..., None]
    color = color + brows[..., None] * (own_hair - color)
    skin = coverage * np.clip(member["face"], 0, 1) * (1 - brows)
    beard = np.clip(member["beard"], 0, 1)
    if who.stubble:
        color = color * (
            1 - who.stubble * (beard * np.clip(0.7 + 0.5 * hair_texture[..., 1], 0, 1))[..., None]
        )
        skin = skin * (1 - 0.4 * who.stubble * beard)
    if who.beard:
        grown = who.beard * np.clip((beard - 0.25 + 0.12 * hair_texture[..., 1]) * 4, 0, 1)
        color = color + grown[..., None] * (own_hair * hair_texture[..., :1] - color)
        skin = skin * (1 - grown)
    color = np.clip(color, 0, None) + highlight
    color, skin = _teeth(rng, color, skin, member["inner"] * coverage, lit, to_pixels(marks), marks, size)

    behind = textures.background(rng, size, grey) * rng.uniform(0.4, 1.3)
    picture = color + (1 - coverage)[..., None] * behind
    throat = to_pixels(np.array([[0.0, marks[8, 1] - rng.uniform(28, 55), 0.0]]))[0]
    picture, skin = covers.over(picture, covers.clothes(rng, size, throat, unit, brightness), skin)

    field = shell[..., 3] + 7 * textures.read_chart(edge, shell_where)
    opacity = np.clip(field / rng.uniform(2, 9) + 0.5, 0, 1) * nearer
    hair_lit = hair_color * shell[..., 4:7] * textures.read_chart(chart, shell_where)[..., None]
    hair_lit = hair_lit + 0.03 * brightness * np.clip(shell[..., 4:5] - 1, 0, 1)
    opacity = cv2.GaussianBlur(opacity.astype(np.float32), None, 0.6)
    picture, skin = covers.over(picture, (hair_lit, opacity), skin)
    return _cover(
        rng, who, picture, skin, hair_lit, opacity, marks, to_pixels, turn, unit, brightness, size, grey
    )


def _cover(
    rng, who, picture, skin, hair_lit, hair_opacity, marks, to_pixels, turn, unit, brightness, size, grey
):
    """What lies over the face: strands, glasses, a hand, a thing."""
    pixels = to_pixels(marks)
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    rows, columns = np.nonzero((hair_opacity > 0.4) & (hair_opacity < 0.95))
    if len(rows) > 20 and rng.random() < 0.3:
        chosen = rng.choice(len(rows), int(rng.integers(3, 40)))
        roots = np.stack([columns[chosen], rows[chosen]], -1) + 0.5
        color = hair_lit[hair_opacity > 0.4].mean(0)
        picture, skin = covers.over(picture, covers.strands(rng, size, roots, color, unit), skin)
    if who.wears_glasses and rng.random() < 0.8:
        yaw = float(np.arctan2(turn[0, 2], turn[2, 2]))
        layer = covers.glasses(rng, size, marks, to_pixels, yaw, brightness)
        picture, skin = covers.over(picture, layer, skin)
    chance = rng.random()
    if chance < 0.08:
        bare = skin > 0.7
        tone = picture[bare].mean(0) if bare.sum() > 50 else np.array([0.4, 0.25, 0.2])
        picture, skin = covers.over(picture, covers.hand(rng, size, box, tone), skin)
    elif chance < 0.18:
        picture, skin = covers.over(picture, covers.thing(rng, size, box, brightness), skin)
    if grey:
        picture = np.repeat((picture @ np.float32([0.2126, 0.7152, 0.0722]))[..., None], 3, -1)
    return picture, skin


def _teeth(rng, color, skin, inner, lit, pixels, marks, size):
    """Teeth between open lips: a light band that hangs from the upper lip, inside the mouth only."""
    gap = np.linalg.norm(marks[62] - marks[66])
    show = rng.random() < 0.85
    white, drop = rng.uniform(0.35, 0.75), rng.uniform(5.0, 9.0)
    if gap < 2.5 or not show:
        return color, skin
    mouth, band = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    cv2.fillPoly(mouth, [covers._fixed(pixels[60:68])], 1.0, cv2.LINE_AA, 4)
    down = (pixels[66] - pixels[62]) / gap * min(drop, 1.2 * gap)
    upper = pixels[60:65]
    cv2.fillPoly(band, [covers._fixed(np.concatenate([upper, upper[::-1] + down]))], 1.0, cv2.LINE_AA, 4)
    rows = np.clip(mouth * band * np.clip(1.5 * inner, 0, 1), 0, 1)[..., None]
    tooth = np.float32([1.0, 0.93, 0.8]) * white * 0.75 * np.maximum(lit.mean(-1, keepdims=True), 0.15)
    return color + rows * (tooth - color), skin * (1 - rows[..., 0])


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
