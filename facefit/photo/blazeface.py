"""The BlazeFace detector (Bazarevsky et al. 2019), run in JAX: boxes and six points of the faces in a
photograph.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import jax
import numpy as np
from jaxtyping import Array, Float

from facefit import cache
from facefit.photo import cropping, network

SIZE = 256  # side of the network's input, pixels
_ANCHORS = {16: 2, 32: 6}  # anchors a cell, by stride


@dataclass(frozen=True)
class Detection:
    """A proposed face: box centre and size, six points (eyes as seen from left to right in an upright face,
    nose, mouth, ears), all in photo pixels.
    """

    center: Float[np.ndarray, " 2"]
    size: float
    points: Float[np.ndarray, "6 2"]
    score: float

    @property
    def angle(self) -> float:
        """How far the line of the eyes is turned from level, radians, clockwise as seen."""
        across = self.points[1] - self.points[0]
        return float(np.arctan2(across[1], across[0]))


@functools.cache
def _weights():
    return jax.device_put(network.load("blazeface")[1])


@cache.remembered
def _run(weights: dict, images: Float[Array, "B 256 256 3"]) -> tuple[Array, Array]:
    out = network.forward(network.load("blazeface")[0], weights, images * 2 - 1)
    scores = jax.numpy.concatenate([out["scores_16"], out["scores_32"]], 1)[..., 0]
    return scores, jax.numpy.concatenate([out["boxes_16"], out["boxes_32"]], 1)


@functools.cache
def _anchors() -> np.ndarray:
    """Centres of the anchors in the input, pixels, (896, 2)."""
    rows = []
    for stride, count in _ANCHORS.items():
        y, x = np.mgrid[: SIZE // stride, : SIZE // stride]
        centers = np.stack([x, y], -1).reshape(-1, 1, 2) + 0.5
        rows.append(np.repeat(centers * stride, count, axis=1).reshape(-1, 2))
    return np.concatenate(rows).astype(np.float32)


def detect(pixels: np.ndarray, squares: list[np.ndarray], threshold: float = 0.5) -> list[Detection]:
    """Faces seen in the given squares of a photograph (matrices square -> photo of side SIZE), best first.

    Overlapping detections are blended, weighted by score, as in the original pipeline; the squares share one
    such pass.
    """
    found = []
    for matrix in squares:
        image = cropping.warp(pixels, matrix, SIZE, border=cv2.BORDER_CONSTANT).astype(np.float32) / 255
        scores, raw = (np.asarray(a[0]) for a in _run(_weights(), image[None]))
        probabilities = 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
        scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
        for i in np.flatnonzero((probabilities >= threshold) & (raw[:, 2:4].min(1) > 2)):
            points = np.concatenate([raw[i, :2][None], raw[i, 4:].reshape(6, 2)]) + _anchors()[i]
            points = points @ matrix[:2, :2].T + matrix[:2, 2]
            found.append(
                Detection(points[0], float(raw[i, 2:4].max() * scale), points[1:], float(probabilities[i]))
            )
    return _blend(found)


def whole(pixels: np.ndarray, angle: float = 0.0, zoom: float = 1.0) -> np.ndarray:
    """The matrix of a square that holds the whole photograph (zoom > 1: it fills that much less of the
    square).
    """
    height, width = pixels.shape[:2]
    return cropping.square_to_photo((width / 2, height / 2), max(height, width) * zoom, SIZE, angle)


def overlap(a: Detection, b: Detection) -> float:
    """Intersection over union of the two upright boxes."""
    half_a, half_b = a.size / 2, b.size / 2
    inner = np.minimum(a.center + half_a, b.center + half_b) - np.maximum(
        a.center - half_a, b.center - half_b
    )
    if inner.min() <= 0:
        return 0.0
    return float(inner.prod() / (a.size**2 + b.size**2 - inner.prod()))


def _blend(found: list[Detection]) -> list[Detection]:
    """Weighted non-maximum suppression."""
    rest, kept = sorted(found, key=lambda d: -d.score), []
    while rest:
        group = [d for d in rest if overlap(rest[0], d) > 0.3]
        rest = [d for d in rest if overlap(rest[0], d) <= 0.3]
        weight = np.array([d.score for d in group]) / sum(d.score for d in group)
        kept.append(
            Detection(
                sum(w * d.center for w, d in zip(weight, group)),
                float(sum(w * d.size for w, d in zip(weight, group))),
                sum(w * d.points for w, d in zip(weight, group)),
                group[0].score,
            )
        )
    return kept
