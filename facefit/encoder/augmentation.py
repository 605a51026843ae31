"""What training does to a stored crop: moves it, and makes it look taken by another camera."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facefit.encoder.landmarks import ibug_points
from facefit.photo.face_crop import face_square
from facefit.synthesis import covers


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How much is done. Shift, scale, rotation and mirroring as in Deng et al. 2019 (their code's values).

    Attributes:
        shift: largest, as a share of the crop. scale: largest relative change. rotation: largest, radians.
        mirror: probability that the picture is mirrored (see `facefit.encoder.mirroring`).
        exposure, white_balance: standard deviations of the logarithm of linear light; the truth follows.
        gamma: standard deviation of the logarithm of an exponent on sRGB; the truth does not follow.
        grey: probability of a grey picture, for photographs only.
        blur: probability, and largest standard deviation in pixels of a 128 px crop.
        coarse: probability that the picture is enlarged from fewer pixels, and the least share of them.
        noise: probability, and largest standard deviation in sRGB.
        jpeg: probability, and least quality.
        cover: probability that something lies over the face.
    """

    shift: float = 10.0 / 224.0
    scale: float = 0.1
    rotation: float = math.radians(10.0)
    mirror: float = 0.5
    exposure: float = 0.15
    white_balance: float = 0.05
    gamma: float = 0.08
    grey: float = 0.04
    blur: tuple[float, float] = (0.25, 2.0)
    coarse: tuple[float, float] = (0.15, 0.3)
    noise: tuple[float, float] = (0.4, 0.04)
    jpeg: tuple[float, float] = (0.3, 30.0)
    cover: float = 0.12


TRAINING = Augmentation()
# Crops as prediction sees them.
NONE = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, (0, 0), (0, 1), (0, 0), (0, 100), 0)
# Image sets whose photographs differ in quality, from good to hardly usable.
GRADED = Augmentation(blur=(0.45, 5.0), coarse=(0.3, 0.12), noise=(0.5, 0.1), jpeg=(0.3, 10.0), cover=0.4)

_LINEAR = np.arange(256) / 255.0
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4)


@dataclasses.dataclass(frozen=True)
class Augmented:
    """A network crop of P pixels: image (P, P, 3) sRGB in [0, 1], skin (P, P), landmarks and dense points in
    its pixels, and the true surface points, and the factor on the light (3,).
    """

    image: Float[np.ndarray, "P P 3"]
    skin: Float[np.ndarray, "P P"]
    landmarks: Float[np.ndarray, "68 2"]
    dense: Float[np.ndarray, "468 3"]
    surface468: Float[np.ndarray, "468 2"]
    gain: Float[np.ndarray, "3"]


def augment(
    rng: np.random.Generator,
    image: UInt8[np.ndarray, "S S 3"],
    skin: UInt8[np.ndarray, "S S"],
    landmarks: Float[np.ndarray, "68 2"],
    dense: Float[np.ndarray, "468 3"],
    size: int,
    amount: Augmentation,
    surface468: Float[np.ndarray, "468 2"] | None,
) -> Augmented:
    """A network crop of `size` pixels from a stored crop. A pure function of the generator's state.

    It lies around the dense points, as in prediction, from where the augmentation moves it.
    Labelled samples are not made grey.

    Args:
        surface468: of a labelled sample, see `Batch`; None has it that the sample is not labelled.
    """
    labelled = surface468 is not None
    matrix = _matrix(rng, dense, size, amount)  # network crop -> stored crop
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])  # OpenCV has the first pixel's centre at (0, 0)
    sampling = (np.linalg.inv(half) @ matrix @ half)[:2]
    interpolation = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(
        image, sampling, (size, size), flags=interpolation, borderMode=cv2.BORDER_REPLICATE
    )
    skin = cv2.warpAffine(skin, sampling, (size, size), flags=interpolation)
    inverse = np.linalg.inv(matrix)
    points = (landmarks @ inverse[:2, :2].T + inverse[:2, 2]).astype(np.float32)
    told = np.concatenate([dense[:, :2] @ inverse[:2, :2].T + inverse[:2, 2], dense[:, 2:]], -1)
    surface = np.zeros((468, 2)) if surface468 is None else surface468 @ inverse[:2, :2].T + inverse[:2, 2]
    told[:, 2] *= math.sqrt(abs(np.linalg.det(inverse[:2, :2])))

    image, gain = _color(rng, image, amount, labelled)
    if rng.random() < amount.cover:
        image, skin = _cover(rng, image, skin, points)
    image = _degrade(rng, image, amount)
    return Augmented(
        np.clip(image, 0, 1),
        skin.astype(np.float32) / np.float32(255),
        points,
        told.astype(np.float32),
        surface.astype(np.float32),
        gain.astype(np.float32),
    )


def _matrix(
    rng: np.random.Generator, dense: Float[np.ndarray, "468 3"], size: int, amount: Augmentation
) -> np.ndarray:
    center, side = face_square(ibug_points(dense))
    shift = rng.uniform(-amount.shift, amount.shift, 2) * size
    zoom = 1 + rng.uniform(-amount.scale, amount.scale)
    angle = rng.uniform(-amount.rotation, amount.rotation)
    step = side / size / zoom
    turn = step * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    offset = center - turn @ (size / 2 + shift)
    return np.array([[*turn[0], offset[0]], [*turn[1], offset[1]], [0, 0, 1]])


def _color(
    rng: np.random.Generator, image: np.ndarray, amount: Augmentation, labelled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Exposure and white balance in linear light, a gamma on sRGB: one table a channel; float32 in [0, 1]."""
    gain = np.exp(amount.exposure * rng.standard_normal() + amount.white_balance * rng.standard_normal(3))
    gamma = np.exp(amount.gamma * rng.standard_normal())
    linear = np.clip(_LINEAR[:, None] * gain, 0, 1)
    srgb = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-6) ** (1 / 2.4) - 0.055
    )
    table = (srgb**gamma).astype(np.float32)
    out = cv2.LUT(image, table[None])
    if rng.random() < amount.grey and not labelled:
        out = np.repeat(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)[..., None], 3, -1)
    return out, gain


def _cover(
    rng: np.random.Generator, image: np.ndarray, skin: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    size = image.shape[0]
    box = np.concatenate([points.min(0), points.max(0)])
    if rng.random() < 0.3:
        bare = skin > 180
        tone = image[bare].mean(0) if bare.sum() > 50 else np.array([0.7, 0.55, 0.5])
        layer = covers.hand(rng, size, box, tone)
    else:
        layer = covers.thing(rng, size, box, 1.0)
    return covers.over(image, layer, skin)


def _degrade(rng: np.random.Generator, image: np.ndarray, amount: Augmentation) -> np.ndarray:
    size = image.shape[0]
    chances, levels = rng.random(4), rng.random(4)
    if chances[0] < amount.blur[0]:
        sigma = max(0.1, levels[0] * amount.blur[1] * size / 128)
        if rng.random() < 0.2:  # the camera moved
            reach = max(1, round(1.5 * sigma))
            way = rng.uniform(0, math.pi)
            kernel = np.zeros((2 * reach + 1,) * 2, np.float32)
            tip = reach * np.array([math.cos(way), math.sin(way)])
            ends = [tuple(int(round(v)) for v in reach + s * tip) for s in (-1, 1)]
            cv2.line(kernel, *ends, 1.0, 1, cv2.LINE_AA)
            image = cv2.filter2D(image, -1, kernel / kernel.sum())
        else:
            image = cv2.GaussianBlur(image, None, sigma)
    if chances[1] < amount.coarse[0]:
        share = amount.coarse[1] ** levels[1]
        few = max(12, round(size * share))
        image = cv2.resize(cv2.resize(image, (few, few), interpolation=cv2.INTER_AREA), (size, size))
    if chances[2] < amount.noise[0]:
        image = image + rng.standard_normal(image.shape, np.float32) * np.float32(levels[2] * amount.noise[1])
    if chances[3] < amount.jpeg[0]:
        quality = int(amount.jpeg[1] + levels[3] * (95 - amount.jpeg[1]))
        coded = cv2.imencode(
            ".jpg", np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )[1]
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32) / np.float32(255)
    return image.astype(np.float32)
