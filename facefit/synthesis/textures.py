"""Procedural texture: backgrounds, and the detail of skin, brows and hair that a smooth albedo lacks."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

# The chart of a head: angle about the vertical axis times a radius, and height; a pixel is a millimetre.
_WIDTH, _HEIGHT, _TOP, _RADIUS = 440, 300, 140.0, 80.0
_AXIS_DEPTH = -5.0  # of the axis, millimetres


def noise(
    rng: np.random.Generator, size: tuple[int, int], cell: tuple[float, float], channels: int = 1
) -> Float[np.ndarray, "H W C"]:
    """Smooth noise of mean zero and about unit variance whose grains are `cell` = (rows, columns) pixels."""
    rows, columns = (max(2, int(np.ceil(n / c)) + 2) for n, c in zip(size, cell, strict=True))
    grid = rng.standard_normal((rows, columns, channels), np.float32)
    zoomed = cv2.resize(grid, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return zoomed.reshape(*size, channels)


def chart_of(place: Float[np.ndarray, "*shape 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Column and row in the chart of points on the mean head, float32."""
    angle = np.arctan2(place[..., 0], place[..., 2] - _AXIS_DEPTH)
    return (
        np.float32(_WIDTH / 2) + _RADIUS * angle.astype(np.float32),
        np.float32(_TOP) - place[..., 1].astype(np.float32),
    )


def read_chart(chart: np.ndarray, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The chart's values at columns and rows as `chart_of` gives them."""
    return cv2.remap(chart, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _strokes(chart: np.ndarray, lines: list[np.ndarray], value: float, thickness: int) -> None:
    fixed = [np.round(line * 16).astype(np.int32) for line in lines]
    cv2.polylines(chart, fixed, False, value, thickness, cv2.LINE_AA, 4)


def skin_chart(rng: np.random.Generator, marks: Float[np.ndarray, "68 3"]) -> Float[np.ndarray, "R C 3"]:
    """What multiplies the skin's colour: mottling, pores, freckles and moles, creases of age; mean about one.

    Args:
        marks: the iBUG points on the mean head, millimetres.
    """
    size = (_HEIGHT, _WIDTH)
    blood = noise(rng, size, (22, 22)) * rng.uniform(0.0, 0.06) + noise(rng, size, (8, 8)) * rng.uniform(
        0.0, 0.05
    )
    light = noise(rng, size, (40, 40)) * rng.uniform(0.0, 0.05) + noise(rng, size, (3, 3)) * rng.uniform(
        0.0, 0.05
    )
    light += rng.standard_normal((*size, 1), np.float32) * rng.uniform(0.01, 0.06)
    if rng.random() < 0.2:  # freckles, where the skin has many together
        spots = np.clip(noise(rng, size, (2.4, 2.4)) - rng.uniform(0.8, 1.6), 0, 1)
        spots *= np.clip(noise(rng, size, (45, 45)) + 0.5, 0, 1) * rng.uniform(0.3, 1.0)
        light, blood = light - 0.4 * spots, blood - 0.5 * spots
    # More blood takes green and blue away.
    log = cv2.merge([light + 0.35 * blood, light + blood, light + 0.9 * blood])
    column, row = chart_of(marks)
    points = np.stack([column, row], -1)
    for _ in range(rng.poisson(1.2)):
        center = rng.uniform(points.min(0), points.max(0))
        cv2.circle(log, [int(c) for c in center], 1, (-0.9, -1.2, -1.3), -1, cv2.LINE_AA)
    age = max(0.0, rng.normal(0.25, 0.45))
    if age > 0.05:
        log += _creases(rng, points)[..., None] * np.float32([0.8, 1.0, 1.05]) * age
    return cv2.exp(log)


def _creases(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Folds from nose to mouth, lines of forehead, glabella and eyes, bags under the eyes; at most 0."""
    chart = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for wing, corner, eye_out, side in ((31, 48, 36, -1), (35, 54, 45, 1)):
        start, end = (points[wing] + [4 * side, -2], points[corner] + [7 * side, rng.uniform(-2, 10)])
        middle = (start + end) / 2 + [5 * side, 0]
        _strokes(chart, [np.stack([start, middle, end])], -rng.uniform(0.3, 1.0), 2)
        for angle in rng.uniform(-30, 40, rng.integers(0, 4)):
            tip = points[eye_out] + 6 * np.array([side, 0])
            turn = np.radians(angle)
            way = np.array([side * np.cos(turn), np.sin(turn)]) * rng.uniform(6, 14)
            _strokes(chart, [np.stack([tip, tip + way])], -0.5, 1)
        lid = points[[36, 41, 40, 39] if side < 0 else [42, 47, 46, 45]]
        _strokes(chart, [lid + [0, rng.uniform(5, 10)]], -rng.uniform(0.0, 0.8), 2)
    brow = points[17:27]
    for k in range(rng.integers(0, 5)):
        line = np.stack([brow[2], (brow[4] + brow[5]) / 2, brow[7]]) + [0, -14.0 - 8 * k]
        _strokes(chart, [line + rng.normal(0, 1.5, (3, 2))], -rng.uniform(0.2, 0.7), 1)
    for side in (-1, 1):
        top = (brow[4] + brow[5]) / 2 + [4 * side, -4]
        _strokes(chart, [np.stack([top, top + [-side, 12.0]])], -rng.uniform(0, 0.6), 1)
    return cv2.GaussianBlur(chart, None, rng.uniform(0.8, 1.8))


def brow_chart(rng: np.random.Generator, marks: Float[np.ndarray, "68 3"]) -> Float[np.ndarray, "R C"]:
    """How much of the skin the brows' hairs cover, in [0, 1]: from hardly any to bushy."""
    chart = np.zeros((_HEIGHT, _WIDTH), np.float32)
    column, row = chart_of(marks)
    points = np.stack([column, row], -1)
    count, length = int(rng.integers(0, 130)), rng.uniform(4, 8)
    up, thick = rng.uniform(-3, 4), rng.uniform(1.5, 4.0)
    strength = rng.uniform(0.3, 0.9)
    lines = []
    for line, side in ((points[21:16:-1], -1), (points[22:27], 1)):
        along = rng.uniform(0, 4, count)
        base = np.stack([np.interp(along, np.arange(5), line[:, k]) for k in (0, 1)], -1)
        taper = np.interp(along, [0, 0.6, 2.5, 4], [0.7, 1.0, 0.8, 0.3])
        base[:, 1] += rng.uniform(-1, 1, count) * thick * taper - up
        lean = np.interp(along, [0, 4], [1.2, 0.1]) + rng.normal(0, 0.15, count)
        tip = base + length * np.stack([side * np.cos(lean), -np.sin(lean)], -1)
        lines += list(np.stack([base, tip], 1))
    if lines:
        _strokes(chart, lines, strength, 1)
    return cv2.GaussianBlur(chart, None, 0.7)


def hair_chart(rng: np.random.Generator) -> tuple[Float[np.ndarray, "R C"], Float[np.ndarray, "R C"]]:
    """Brightness of hair (mean about one), unevenness of its edge (about unit variance); combed down."""
    size = (_HEIGHT, _WIDTH)
    curl = rng.uniform(0, 1) ** 2
    grain = (rng.uniform(20, 60) * (1 - 0.9 * curl) + 2, rng.uniform(1.6, 4))
    strands = noise(rng, size, grain)[..., 0] * rng.uniform(0.15, 0.4)
    strands += noise(rng, size, (4 * grain[0], 12))[..., 0] * 0.2
    column, row = np.meshgrid(np.arange(_WIDTH, dtype=np.float32), np.arange(_HEIGHT, dtype=np.float32))
    bend = noise(rng, size, (70, 70), 2) * rng.uniform(4, 22)
    bent = cv2.remap(
        strands, column + bend[..., 0], row + bend[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT
    )
    edge = 0.6 * noise(rng, size, (30, 3))[..., 0] + 0.8 * noise(rng, size, (18, 18))[..., 0]
    return np.exp(bent), edge


def background(rng: np.random.Generator, size: int, grey: bool = False) -> Float[np.ndarray, "S S 3"]:
    """Linear RGB behind the head: plain studio, gradients, blurred things, coarse and fine noise."""
    base = rng.uniform(0.0, 1.0, 3) ** 2.2 if rng.random() < 0.5 else np.full(3, rng.uniform(0.0, 1.0) ** 1.8)
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = base
    if rng.random() < 0.8:
        tilt = rng.uniform(0, 2 * np.pi)
        ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
        ramp = ramp[None] * np.cos(tilt) + ramp[:, None] * np.sin(tilt)
        picture *= np.exp(ramp * rng.uniform(0.2, 1.6))[..., None]
    if rng.random() < 0.6:
        cell = rng.uniform(15, 90)
        picture *= np.exp(noise(rng, (size, size), (cell, cell), 3) * rng.uniform(0.05, 0.5))
    for _ in range(rng.integers(0, 14) if rng.random() < 0.6 else 0):
        color = [float(c) for c in rng.uniform(0, 1, 3) ** 2]
        center, reach = rng.uniform(0, size, 2), rng.uniform(0.05, 0.5, 2) * size
        box = cv2.boxPoints(
            (tuple(map(float, center)), tuple(map(float, reach)), float(rng.uniform(0, 180)))
        ).astype(np.int32)
        if rng.random() < 0.5:
            cv2.fillPoly(picture, [box], color, cv2.LINE_AA)
        else:
            cv2.ellipse(
                picture, [int(c) for c in center], [int(r / 2) for r in reach],
                float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA,
            )  # fmt: skip
    if rng.random() < 0.7:
        picture = cv2.GaussianBlur(picture, None, float(rng.uniform(0.5, 9)))
    if rng.random() < 0.3:
        picture *= np.exp(rng.standard_normal((size, size, 1), np.float32) * rng.uniform(0.02, 0.25))
    picture = np.clip(picture, 0, 1)
    picture += rng.uniform(0, 0.9) * (picture.mean(-1, keepdims=True) - picture)  # most of the world is drab
    return np.repeat(picture.mean(-1, keepdims=True), 3, -1) if grey else picture
