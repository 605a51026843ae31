"""A UV texture of the subject's albedo, taken from the photographs and completed from the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from facefit.export.checks import require_finite
from facefit.export.views import PosedView, draw_atlas, light_on, to_bytes
from facefit.export.window import Window
from facefit.model.proximity import closest_points
from facefit.model.records import FaceModel
from facefit.model.registration import vertex_normals
from facefit.model.transfer import positions

COLLAR = (5.0, 45.0)  # mm below the chin: from here to there photographs are believed less and less
MIRROR = 0.15  # weight of the other side of the face against one seen directly
FULL = 0.25  # weight at which nothing of the model's albedo is left

# How far, in the logarithm of albedo, a photograph may depart from the model's albedo before it is taken for
# something else that lies there (clothes, hair). Regions that are not named may look like anything.
DEPARTURE = {"neck": 0.6, "ears": 0.8, "skin": 1.2}
ODD = 0.25  # departure from the usual ratio from which on a spot says nothing of its surroundings
HAIR_SEEN = 20.0  # vertices of the scalp that must be seen to tell the colour of all hair
BRIGHT = 2.0  # how many times less it may be brighter than darker


class Texels(NamedTuple):
    """The N texels that show a drawn surface.

    Attributes:
        size: side of the texture.
        row, column, face: of every texel, (N,).
        mixing: takes values of the vertices (V, C) to values of the texels (N, C); sparse, three entries a
            row.
    """

    size: int
    row: np.ndarray
    column: np.ndarray
    face: np.ndarray
    mixing: sparse.csr_matrix

    @staticmethod
    def of(model: FaceModel, size: int) -> Texels:
        """Texels of a square texture of that side."""
        atlas = draw_atlas(np.asarray(model.uv), np.asarray(model.uv_faces), size)
        row, column = np.nonzero(atlas.face >= 0)
        face = atlas.face[row, column]
        weights = np.ascontiguousarray(atlas.barycentric[row, column], np.float32).ravel()
        corners = np.asarray(model.faces)[face].ravel()
        starts = np.arange(0, 3 * len(row) + 1, 3, dtype=np.int32)
        mixing = sparse.csr_matrix((weights, corners, starts), (len(row), len(model.mean)))
        return Texels(size, row, column, face, mixing)

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Values of the texels (N, ...) in their places, (size, size, ...), zero elsewhere."""
        result = np.zeros((self.size, self.size, *values.shape[1:]), np.float32)
        result[self.row, self.column] = values
        return result

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """Mean of the values (N,) over a fortieth of the texture's side; empty texels do not count."""
        side = (2 * (self.size // 80) + 1,) * 2
        total = cv2.blur(self.picture(values), side)
        return (total / np.maximum(cv2.blur(self.picture(np.ones_like(values)), side), 1e-6))[
            self.row, self.column
        ]


def bake_texture(
    model: FaceModel,
    albedo: Float[np.ndarray, "V 3"],
    views: Sequence[PosedView],
    size: int = 1024,
    relight: bool = True,
) -> UInt8[np.ndarray, "S S 3"]:
    """The albedo of the fitted head as a picture, sRGB, row 0 at v = 1.

    Every photograph is read at every texel it shows (depth test, fading at grazing angles and at occluding
    edges), the light of its view is divided out, and the views are blended robustly, so that what only one of
    several shows there (a hand, a highlight) drops out. The mirrored side of the face, each in its own light,
    stands in faintly where a side is not seen. The rest is the model's albedo, its tone led smoothly over the
    mesh from the seen skin, so that neither the border of what is seen nor the seams of the atlas show. The
    mouth's inside is never taken from a
    photograph: it lies where teeth, tongue and lips are not told apart.

    Args:
        model: mean, faces, UVs and regions are read.
        albedo: the fitted albedo of every vertex, linear RGB.
        size: side of the texture, texels.
        relight: False keeps the light in the texture, as photographed.

    Raises:
        ValueError: albedo is not finite.
    """
    albedo = np.clip(np.asarray(albedo, np.float32), 0.003, 1.0)
    require_finite(albedo, "albedo")
    texels = Texels.of(model, size)
    expected = texels.mixing @ albedo
    regions = {
        name: texels.mixing @ np.asarray(model.regions[name]) for name in (*DEPARTURE, "eyes", "inner")
    }
    seen, confidence = _gather(model, texels, views, expected, regions, relight)
    tone = _tone(model, texels, albedo, seen, expected, confidence)
    keep = np.clip(confidence / FULL, 0, 1)
    keep = (keep * keep * (3 - 2 * keep))[:, None]
    texture = texels.picture(keep * seen + (1 - keep) * expected * tone)
    return to_bytes(_pad(texture, texels.picture(np.ones(len(seen))) > 0))


def _gather(
    model: FaceModel,
    texels: Texels,
    views: Sequence[PosedView],
    expected: np.ndarray,
    regions: dict[str, np.ndarray],
    relight: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Blended albedo (N, 3) and confidence (N,) of what the photographs show, the mirrored side included."""
    faces, count = np.asarray(model.faces), len(expected)
    # Below the collar lie clothes.
    below = positions(model, model.landmarks68)[:17, 1].min() - texels.mixing @ np.asarray(model.mean)[:, 1]
    usable = (regions["inner"] < 0.5) & (below < COLLAR[1])
    fade = np.clip((COLLAR[1] - below) / (COLLAR[1] - COLLAR[0]), 0, 1)
    if not views:
        return expected.copy(), np.zeros(count, np.float32)

    def read(
        window: Window, points: np.ndarray, faces: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        color, weight = np.full((count, 3), 0.003, np.float32), np.zeros(count, np.float32)
        normals = vertex_normals(points.astype(np.float64), faces)
        turned = ((normals * points).sum(1) < 0)[faces].any(axis=1)
        chosen = np.flatnonzero(wanted & turned[texels.face])
        light = light_on(normals, window.lighting) if relight else np.ones_like(points)
        shown = texels.mixing[chosen] @ np.concatenate([points, normals, light], 1).astype(np.float32)
        color[chosen], weight[chosen] = window.sample(
            shown[:, :3], shown[:, 3:6], shown[:, 6:], regions["eyes"][chosen] > 0.5
        )
        if relight:
            alike = np.ones(count, np.float32)
            alike[chosen] = _likeness(
                color[chosen], expected[chosen], {k: v[chosen] for k, v in regions.items()}
            )
            weight *= np.minimum(alike, texels.smooth(alike))
        return color, weight * fade

    windows = [Window(model, view) for view in views]
    direct = [
        read(window, np.asarray(view.vertices, np.float32), faces, usable)
        for window, view in zip(windows, views, strict=True)
    ]
    known = np.max([weight for _, weight in direct], axis=0)
    corners, weights = mirror_points(model)
    sources = _agree(direct, expected, regions["skin"]) if relight else direct
    for window, view in zip(windows, views, strict=True):
        across = np.einsum("vk,vkc->vc", weights, np.asarray(view.vertices, np.float32)[corners])
        color, weight = read(window, across.astype(np.float32), faces[:, ::-1], usable & (known < FULL))
        sources.append((color, MIRROR * weight))
    shares = np.stack([weight for _, weight in sources])
    shown = np.flatnonzero(shares.max(axis=0) > 1e-3)  # fewer than half of the texels

    def smooth(values: np.ndarray) -> np.ndarray:
        everywhere = np.zeros(count, np.float32)
        everywhere[shown] = values
        return texels.smooth(everywhere)[shown]

    seen, confidence = expected.copy(), np.zeros(count, np.float32)
    colors = np.stack([color[shown] for color, _ in sources])
    seen[shown], confidence[shown] = blend(colors, shares[:, shown], smooth)
    return seen, confidence


def _agree(
    sources: list[tuple[np.ndarray, np.ndarray]], expected: np.ndarray, skin: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The sources with their skin brought to one tone, that of all of them together."""
    if len(sources) == 1:
        return sources
    tones, sway = [], []
    for color, weight in sources:
        chosen = np.flatnonzero(weight * skin > 0.1)[::7]
        if len(chosen) < 50:
            tones.append(np.full(3, np.nan))
            sway.append(0.0)
            continue
        ratio = np.log(np.maximum(color[chosen], 0.003)) - np.log(expected[chosen])
        tones.append(_median_rows(ratio, weight[chosen]))
        sway.append(float(weight[chosen].sum()))
    if not any(sway):
        return sources
    usual = np.average(np.nan_to_num(tones), axis=0, weights=sway)
    gains = [np.exp(usual - tone) if known else np.ones(3) for tone, known in zip(tones, sway, strict=True)]
    return [
        ((color * gain).astype(np.float32), weight)
        for (color, weight), gain in zip(sources, gains, strict=True)
    ]


def _likeness(color: np.ndarray, expected: np.ndarray, regions: dict[str, np.ndarray]) -> np.ndarray:
    """Near one where a colour may well be the subject's skin, near zero where it cannot, (N,)."""
    difference = np.log(np.maximum(color, 0.003)) - np.log(expected)
    # Skin has darker things on it (beard, moles), but what is much brighter is a highlight, a collar, the
    # background.
    squared = np.einsum("nc,nc->n", difference, difference) / 3
    squared *= np.where(difference @ np.ones(3, np.float32) > 0, np.float32(BRIGHT**2), np.float32(1))
    return np.exp(
        -0.5 * squared * sum(regions[name] / np.float32(allowed**2) for name, allowed in DEPARTURE.items())
    )


def blend(
    colors: Float[np.ndarray, "K N 3"],
    weights: Float[np.ndarray, "K N"],
    smooth: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> tuple[np.ndarray, np.ndarray]:
    """Robust weighted mean over K sources: colour (N, 3) and the weight it rests on (N,).

    Where several sources agree, one that differs loses its say (Geman-McClure about the weighted mean, three
    rounds, scale 0.4 in the logarithm of albedo). `smooth` keeps neighbours from taking different sides.
    """
    colors, weights = np.asarray(colors, np.float32), np.maximum(weights, 0).astype(np.float32)
    if len(colors) == 1:
        return colors[0], weights[0]
    logs = np.log(np.maximum(colors, np.float32(0.003)))
    leading = weights**2  # the best view leads, or small misalignments would blur every detail
    robust = leading
    for last in (False, False, True):
        mean = np.einsum("kn,knc->nc", robust, logs) / np.maximum(robust.sum(0), 1e-12)[:, None]
        trust = np.empty_like(weights)
        for place, values in enumerate(logs):
            away = values - mean
            trust[place] = 1 / (1 + np.einsum("nc,nc->n", away, away) / np.float32(3 * 0.4**2)) ** 2
        trust *= weights > 0
        robust = leading * (np.stack([smooth(values) for values in trust]) if last else trust)
    total = np.maximum(robust.sum(0), 1e-12)
    return np.einsum("kn,knc->nc", robust, colors) / total[:, None], weights.max(axis=0)


def mirror_points(model: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """For every vertex the point of the mean face's surface across the plane x = 0: corners (V, 3) and
    weights (V, 3).
    """
    mean = np.asarray(model.mean, np.float64)
    across = mean * [-1, 1, 1]
    distance, nearest = cKDTree(mean).query(across)
    corners, weights = np.repeat(nearest[:, None], 3, 1), np.tile(np.float32([1, 0, 0]), (len(mean), 1))
    if (off := distance > 0.2).any():
        found = closest_points(across[off], mean, np.asarray(model.faces))
        corners[off], weights[off] = np.asarray(model.faces)[found.face], found.barycentric
    return corners, weights


def _tone(
    model: FaceModel,
    texels: Texels,
    albedo: np.ndarray,
    seen: np.ndarray,
    expected: np.ndarray,
    confidence: np.ndarray,
) -> np.ndarray:
    """Seen albedo over the model's, as a field that is smooth over the mesh, at every texel, (N, 3).

    The logarithm of the ratio is known at vertices near seen texels and led on by Laplace's equation; far
    from everything seen it tends to the median ratio of the skin, on the scalp to that of the hair. Where the
    photographs show something else (a fringe on the forehead), it is not led on.
    """
    faces = np.asarray(model.faces)
    count = len(model.mean)
    corner = texels.mixing.indices.reshape(-1, 3)
    corner = corner[np.arange(len(corner)), texels.mixing.data.reshape(-1, 3).argmax(1)]
    # Eyeballs keep out: their white would bleach what is next to them. They have one tone of their own.
    eyes = np.asarray(model.regions["eyes"])[corner] > 0.5
    weight = np.where(eyes, 0, confidence**2).astype(np.float64)
    ratio = np.clip(np.log(np.maximum(seen, 0.003)) - np.log(expected), -2, 2)
    bright = np.flatnonzero(eyes & (confidence > 0.1) & (expected.mean(axis=1) > 0.4))
    total = np.bincount(corner, weight, count)
    sums = np.stack([np.bincount(corner, weight * ratio[:, c], count) for c in range(3)], 1)
    if total.sum() < 1e-6:
        return np.ones_like(expected)
    known = sums / np.maximum(total, 1e-12)[:, None]
    strength = np.clip(total / max(np.median(total[total > 0]), 1e-12), 0, 1)
    scalp = np.asarray(model.regions["scalp"])
    skin = strength * np.maximum(np.asarray(model.regions["skin"]) * (1 - scalp), 1e-3) ** 2
    usual = np.tile(_median_rows(known, skin), (count, 1))
    if (hairs := strength * scalp**2).sum() > HAIR_SEEN:
        # At the hairline the albedo is part skin, part hair, each with a ratio of its own.
        bare = _median_rows(albedo, np.asarray(model.regions["skin"]) * (1 - scalp))
        share = np.clip(1 - (1 - scalp)[:, None] * bare / albedo, 0, scalp[:, None])
        usual = np.log((1 - share) * np.exp(usual) + share * np.exp(_median_rows(known, hairs)))
    strength = strength / (1 + ((known - usual) ** 2).mean(1) / ODD**2) ** 2
    # Vertices at one place (texture or part seams) count as one, or the tone could not pass over the seam.
    _, place = np.unique(np.round(np.asarray(model.mean, np.float64), 3), axis=0, return_inverse=True)
    place = place.ravel()
    places = place.max() + 1
    pull = np.bincount(place, strength, places)
    value = np.stack([np.bincount(place, strength * away, places) for away in (known - usual).T], 1)
    pairs = np.sort(place[np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])], axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    rows = np.repeat(np.arange(len(pairs)), 2)
    gradient = sparse.csr_matrix(
        (np.tile([1.0, -1.0], len(pairs)), (rows, pairs.ravel())), shape=(len(pairs), places)
    )
    system = sparse.diags(pull + 2e-3) + 8.0 * gradient.T @ gradient
    field = np.exp(usual + splu(system.tocsc()).solve(value)[place])
    tone = texels.mixing @ field.astype(np.float32)
    tone[eyes] = np.exp(np.median(ratio[bright], axis=0).clip(-0.7, 0)) if len(bright) > 20 else 1.0
    return tone


def _median_rows(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted median of each column of (N, C), (C,)."""
    return np.array([_weighted_median(column, weights) for column in values.T])


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(share, share[-1] / 2)]])


def _pad(texture: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Continues the colours over the gaps between the parts of the atlas, or filtering would reach black."""
    if covered.all() or not covered.any():
        return texture
    _, label = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((label.max() + 1, 3), np.float32)
    table[label[covered]] = texture[covered]
    return table[label]
