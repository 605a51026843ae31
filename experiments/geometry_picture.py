"""Predicted beside true faces: photograph, true head, predicted head, and in colour their distance."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facefit.encoder.validation import aligned_neutral
from facefit.export.views import draw, to_bytes
from facefit.model import FaceModel
from facefit.model.registration import vertex_normals

TURN = -40.0  # degrees of the view from the side
WORST = 5.0  # mm at the upper end of the scale of colours
_DISTANCE = 1100.0  # mm, camera to face
_SHOWN = 1.45  # extent of a panel over that of the frontal face
_SAMPLES = 2  # along each axis for one pixel
_LIGHT = np.float32([-0.35, -0.45, -0.82])  # towards it, camera frame
_CLAY = 0.42  # linear
_TITLE, _TOLD, _BAR = 30, 96, 92  # pixels: height of the titles, width of the numbers and of the scale
# No error is light grey. In CIELAB, where equal steps look equal, and always darker with the error, so that
# the order of the colours can be seen without a scale, in print, and by everyone.
_COLORS = np.float32([(90, 0, 0), (82, 5, 52), (64, 42, 52), (43, 62, 22), (20, 36, -22)])


def error_colors(errors: Float[np.ndarray, "*shape"], worst: float = WORST) -> Float[np.ndarray, "*shape 3"]:
    """Colours of errors from none (light grey) over yellow and red to `worst` and more (dark), linear RGB."""
    steps = np.linalg.norm(np.diff(_COLORS, axis=0), axis=1)
    places = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    share = np.clip(np.asarray(errors, np.float32) / worst, 0.0, 1.0)
    lab = np.stack([np.interp(share, places, channel) for channel in _COLORS.T], -1).astype(np.float32)
    # OpenCV's LRGB is linear.
    rgb = cv2.cvtColor(lab.reshape(1, -1, 3), cv2.COLOR_Lab2LRGB).reshape(lab.shape)
    return np.clip(rgb, 0.0, 1.0)


def geometry_picture(
    model: FaceModel,
    frontal: np.ndarray,
    photographs: Float[np.ndarray, "N P P 3"],
    predicted: Float[np.ndarray, "N I"],
    truth: Float[np.ndarray, "N I"],
    side: int = 240,
    worst: float = WORST,
) -> UInt8[np.ndarray, "H W 3"]:
    """One row a face: its photograph; the true neutral head from the front and from the side; the predicted
    one, brought onto it by a similarity; and the same in the colours of its distance, grey where it is not
    measured. sRGB.

    Args:
        frontal: vertices on which errors are measured (see `EncoderSurface`).
        photographs: crops, sRGB in [0, 1].
        predicted, truth: identity coefficients.
        side: of a panel, pixels.
        worst: mm at the scale's upper end.
    """
    rows = []
    for photograph, found, known in zip(photographs, predicted, truth, strict=True):
        moved, wanted, distances = aligned_neutral(model, frontal, found, known)
        of_mean = aligned_neutral(model, frontal, np.zeros_like(known), known)[2]
        errors = np.full(len(moved), np.nan, np.float32)
        errors[frontal] = distances
        panels = [_photograph(photograph, side)]
        for vertices, colored in ((wanted, None), (moved, None), (moved, errors)):
            panels += [_head(model, frontal, vertices, turn, side, colored, worst) for turn in (0.0, TURN)]
        told = np.full((side, _TOLD, 3), 255, np.uint8)
        for line, text in enumerate((f"{distances.mean():.2f} mm", "mean face:", f"{of_mean.mean():.2f} mm")):
            _write(told, text, (4, side // 2 - 22 + 22 * line + 14 * (line > 0)), 0.42 if line else 0.6)
        rows.append(np.concatenate([*panels, told], 1))
    titles = np.full((_TITLE, rows[0].shape[1], 3), 255, np.uint8)
    named = ("photograph", 0), ("true", 1), ("predicted", 3), ("error, and its mean", 5)
    for text, place in named:
        _write(titles, text, (place * side + 10, 20))
    left = np.concatenate([titles, *rows], 0)
    return np.concatenate([left, _scale(len(left), worst)], 1)


def _photograph(pixels: np.ndarray, side: int) -> np.ndarray:
    how = cv2.INTER_AREA if len(pixels) > side else cv2.INTER_CUBIC
    resized = cv2.resize(np.asarray(pixels, np.float32), (side, side), interpolation=how)
    return np.round(255 * np.clip(resized, 0, 1)).astype(np.uint8)


def _head(
    model: FaceModel,
    frontal: np.ndarray,
    vertices: np.ndarray,
    degrees: float,
    side: int,
    errors: np.ndarray | None,
    worst: float,
) -> np.ndarray:
    """A head on white, turned about its vertical axis: clay, or in the colours of `errors` where they are
    numbers. The camera is the same for all heads of a model.
    """
    face = np.asarray(model.mean)[frontal]
    low, high = face.min(0), face.max(0)
    large = _SAMPLES * side
    angle = math.radians(degrees)
    turn = np.array(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    placed = ((vertices - (low + high) / 2) @ turn.T) * [1, -1, -1] + [0, 0, _DISTANCE]
    seen = (np.asarray(model.mean) - (low + high) / 2) @ turn[0]
    placed[:, 0] -= (seen.min() + seen.max()) / 2  # the head, not the face, in the middle
    focal = large * _DISTANCE / (_SHOWN * (high - low)[:2].max())
    matrix = np.array([[focal, 0, large / 2], [0, focal, large / 2], [0, 0, 1]], np.float32)
    faces = np.asarray(model.faces)
    surface = draw(placed.astype(np.float32), faces, matrix, (large, large))
    normals = vertex_normals(placed, faces).astype(np.float32)
    light = np.clip(normals @ _LIGHT, 0, 1)[:, None]
    if errors is None:
        errors = np.full(len(vertices), np.nan, np.float32)
    measured = np.isfinite(errors).astype(np.float32)[:, None]
    values = np.concatenate([light, measured, np.nan_to_num(errors)[:, None]], 1).astype(np.float32)
    drawn = surface.interpolate(values, faces)
    light, measured, shown = drawn[..., :1], drawn[..., 1] > 0.5, surface.face >= 0
    clay = _CLAY * (0.15 + 0.85 * light)
    # Colours carry numbers: they are shaded little, by what is enough to see the shape.
    colored = error_colors(drawn[..., 2] / np.maximum(drawn[..., 1], 0.5), worst) * (0.7 + 0.3 * light)
    linear = np.where(measured[..., None], colored, np.broadcast_to(clay, colored.shape))
    linear = np.where(shown[..., None], linear, 1.0).astype(np.float32)
    return to_bytes(cv2.resize(linear, (side, side), interpolation=cv2.INTER_AREA))


def _scale(height: int, worst: float) -> np.ndarray:
    """The scale of colours with its numbers, upright."""
    panel = np.full((height, _BAR, 3), 255, np.uint8)
    top, bottom = _TITLE + 14, min(height - 14, _TITLE + 600)
    rows = np.arange(top, bottom)
    errors = worst * (bottom - 1 - rows) / (bottom - 1 - top)
    panel[top:bottom, 12:34] = to_bytes(error_colors(errors * 0.999, worst))[:, None]
    cv2.rectangle(panel, (11, top - 1), (34, bottom), (90, 90, 90), 1)
    _write(panel, "mm", (12, 20))
    for tick in range(int(worst) + 1):
        row = round(bottom - 1 - (bottom - 1 - top) * tick / worst)
        cv2.line(panel, (34, row), (39, row), (90, 90, 90), 1)
        _write(panel, f"{tick}+" if tick == worst else str(tick), (44, row + 5), 0.45)
    return panel


def _write(picture: np.ndarray, text: str, place: tuple[int, int], scale: float = 0.5) -> None:
    """Dark letters, in place; `place` is their lower left corner."""
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA)
