"""A UV texture of the subject's albedo, taken from the photographs and completed from the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from facefit.export.checks import require_finite
from facefit.export.overlay import face_vertices
from facefit.export.views import (
    PosedView,
    draw,
    draw_atlas,
    from_bytes,
    head_crop,
    light_on,
    project,
    to_bytes,
)
from facefit.model.proximity import closest_points
from facefit.model.records import FaceModel
from facefit.model.registration import vertex_normals

DEPTH_SIZE = 640  # side of the window in which visibility is decided, pixels
DEPTH_SLACK = 2.0  # mm behind the visible surface at which a point still counts as visible
BORDER = 0.02  # of the window: within this distance of an occluding edge the photograph fades out
LID = 4.0  # pixels of the window: the same next to the lids
MIRROR = 0.15  # weight of the other side of the face against one seen directly
FULL = 0.25  # weight at which nothing of the model's albedo is left
DARK = 0.2  # of the mean light: darker light is not divided out further, it would only raise noise

# How far, in the logarithm of albedo, a photograph may depart from the model's albedo before it is taken for something
# else that lies there (clothes, hair). Regions that are not named may look like anything.
DEPARTURE = {"neck": 0.45, "ears": 0.6, "skin": 1.2}


class Texels(NamedTuple):
    """The N texels that show a drawn surface.

    Attributes:
        row, column, face: of every texel, (N,).
        mixing: takes values of the vertices (V, C) to values of the texels (N, C); sparse, three entries a row.
    """

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
        return Texels(row, column, face, sparse.csr_matrix((weights, corners, starts), (len(row), len(model.mean))))


def bake_texture(
    model: FaceModel,
    albedo: Float[np.ndarray, "V 3"],
    views: Sequence[PosedView],
    size: int = 1024,
    relight: bool = True,
) -> UInt8[np.ndarray, "S S 3"]:
    """The albedo of the fitted head as a picture, sRGB, row 0 at v = 1.

    Every photograph is read at every texel it shows (depth test, fading at grazing angles and at occluding edges),
    the light of its view is divided out, and the views are blended robustly, so that what only one of several shows
    there (a hand, a highlight) drops out. The mirrored side of the face, each in its own light, stands in faintly
    where a side is not seen. The rest is the model's albedo, its tone led smoothly over the mesh from the seen skin,
    so that neither the border of what is seen nor the seams of the atlas show. The mouth's inside is never taken from a
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
    regions = {name: texels.mixing @ np.asarray(model.regions[name]) for name in (*DEPARTURE, "eyes", "inner")}
    seen, confidence = _gather(model, texels, views, expected, regions, relight)
    tone = _tone(model, texels, seen, expected, confidence)
    keep = np.clip(confidence / FULL, 0, 1)
    keep = (keep * keep * (3 - 2 * keep))[:, None]
    texture, covered = np.zeros((size, size, 3), np.float32), np.zeros((size, size), bool)
    texture[texels.row, texels.column] = keep * seen + (1 - keep) * expected * tone
    covered[texels.row, texels.column] = True
    texture = _pad(texture, covered)
    return to_bytes(texture)


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
    usable = regions["inner"] < 0.5
    if not views:
        return expected.copy(), np.zeros(count, np.float32)
    windows = [_Window(model, view) for view in views]

    def read(window: _Window, points: np.ndarray, faces: np.ndarray, wanted: np.ndarray):
        color, weight = np.zeros((count, 3), np.float32), np.zeros(count, np.float32)
        normals = vertex_normals(points.astype(np.float64), faces)
        turned = ((normals * points).sum(1) < 0)[faces].any(axis=1)
        chosen = np.flatnonzero(wanted & turned[texels.face])
        if len(chosen):
            light = light_on(normals, window.lighting) if relight else np.ones_like(points)
            shown = texels.mixing[chosen] @ np.concatenate([points, normals, light], 1).astype(np.float32)
            color[chosen], weight[chosen] = window.sample(
                shown[:, :3], shown[:, 3:6], shown[:, 6:], regions["eyes"][chosen] > 0.5
            )
        if relight and len(chosen):
            weight[chosen] *= _likeness(color[chosen], expected[chosen], {k: v[chosen] for k, v in regions.items()})
        return color, weight

    sources = [
        read(window, np.asarray(view.vertices, np.float32), faces, usable)
        for window, view in zip(windows, views, strict=True)
    ]
    seen, confidence = blend(*(np.stack(part) for part in zip(*sources, strict=True)))
    weak = np.flatnonzero(usable & (confidence < FULL))
    corners, weights = mirror_points(model)
    for window, view in zip(windows, views, strict=True):
        across = np.einsum("vk,vkc->vc", weights, np.asarray(view.vertices, np.float32)[corners])
        color, weight = read(window, across.astype(np.float32), faces[:, ::-1], usable & (confidence < FULL))
        sources.append((color, MIRROR * weight))
    if len(weak):
        colors, shares = (np.stack([source[part][weak] for source in sources]) for part in (0, 1))
        seen[weak], confidence[weak] = blend(colors, shares)
    return seen, confidence


class _Window:
    """One photograph around the head, with what is needed to tell which surface points it shows."""

    def __init__(self, model: FaceModel, view: PosedView) -> None:
        crop = head_crop(view, face_vertices(model), DEPTH_SIZE, margin=0.3)
        faces = np.asarray(model.faces)
        self.lighting = np.asarray(view.lighting, np.float32)
        self.matrix = crop.matrix() @ np.asarray(view.matrix, np.float32)
        surface = draw(view.vertices, faces, self.matrix, (DEPTH_SIZE, DEPTH_SIZE))
        depth = surface.interpolate(np.asarray(view.vertices, np.float32)[:, 2:], faces)[..., 0]
        self.depth = np.where(surface.face >= 0, depth, np.float32(1e6))
        around = np.ones((3, 3), np.uint8)
        steps = cv2.dilate(self.depth, around) - cv2.erode(self.depth, around)
        # A window pixel is 0.5 mm wide; a smooth surface seen at 80 degrees changes by 6 mm over a 3 x 3 block.
        edge = (steps > 10.0).astype(np.uint8)
        distance = cv2.distanceTransform(1 - edge, cv2.DIST_L2, 3) / (BORDER * DEPTH_SIZE)
        # Eyeballs lie only a millimetre behind the lids, and the opening is small: an edge of their own, a narrow one.
        eyes = (surface.interpolate(np.asarray(model.regions["eyes"])[:, None], faces)[..., 0] > 0.5).astype(np.uint8)
        self.eyes = eyes
        rim = cv2.dilate(eyes, around) - cv2.erode(eyes, around)
        distance = np.minimum(distance, cv2.distanceTransform(1 - rim, cv2.DIST_L2, 3) / LID)
        self.calm = np.clip(distance - 0.1, 0, 1).astype(np.float32)
        # Twice the window's resolution keeps pores; more than the photograph has is not made up by `cut`.
        fine = crop._replace(size=int(np.clip(crop.side, DEPTH_SIZE, 2 * DEPTH_SIZE)))
        self.zoom = fine.size / DEPTH_SIZE
        self.pixels = from_bytes(fine.cut(view.pixels))
        inside = crop.cut(np.ones(view.pixels.shape[:2], np.float32))
        corners = crop.corner + (np.indices((DEPTH_SIZE, DEPTH_SIZE))[::-1].T + 0.5) * crop.side / DEPTH_SIZE
        height, width = view.pixels.shape[:2]
        valid = ((corners > 1) & (corners < [width - 1, height - 1])).all(-1).transpose(1, 0)
        self.calm *= valid * inside

    def sample(
        self, points: np.ndarray, normals: np.ndarray, light: np.ndarray, eyes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Albedo (N, 3) and weight (N,) of surface points (N, 3) with their normals (camera frame) in their light.

        `eyes` (N,) says which points lie on an eyeball: the lids are nearer to them than the depth test resolves.
        """
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        toward = -points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
        facing = (normals * toward).sum(1)
        where = project(points, self.matrix).astype(np.float32)
        front = self._read(self.depth, where, cv2.INTER_NEAREST)
        slope = np.sqrt(np.maximum(1 - facing**2, 0)) / np.maximum(facing, 0.1)
        visible = points[:, 2] < front + DEPTH_SLACK + 0.5 * slope
        weight = np.clip((facing - 0.15) / 0.6, 0, 1) ** 2 * visible
        weight = weight * self._read(self.calm, where, cv2.INTER_LINEAR)
        weight = np.where(eyes & (self._read(self.eyes, where, cv2.INTER_NEAREST) == 0), 0, weight)
        color = self._read(self.pixels, where * np.float32(self.zoom), cv2.INTER_LINEAR)
        floor = DARK * np.maximum(light.mean(axis=0), 1e-3)
        color = np.clip(color / np.maximum(light, floor), 0.0, 1.0)
        weight = weight * np.clip((light / floor).min(axis=1) - 0.5, 0.05, 1)
        return color.astype(np.float32), weight.astype(np.float32)

    def _read(self, picture: np.ndarray, where: np.ndarray, how: int) -> np.ndarray:
        # OpenCV's remap takes at most 32767 rows, and has the first pixel's centre at zero.
        width = 16384
        padded = np.zeros((-(-len(where) // width) * width, 2), np.float32)
        padded[: len(where)] = np.clip(where, -1e4, 1e4) - 0.5
        grid = padded.reshape(-1, width, 2)
        border = cv2.BORDER_REPLICATE
        values = cv2.remap(picture, grid[..., 0], grid[..., 1], how, borderMode=border)
        return values.reshape(len(padded), *picture.shape[2:])[: len(where)]


def _likeness(color: np.ndarray, expected: np.ndarray, regions: dict[str, np.ndarray]) -> np.ndarray:
    """Near one where a colour may well be the subject's skin, near zero where it cannot, (N,)."""
    difference = np.log(np.maximum(color, 0.003)) - np.log(expected)
    squared = (difference**2).mean(axis=1)
    result = np.ones(len(color), np.float32)
    for name, allowed in DEPARTURE.items():
        result *= np.exp(-0.5 * regions[name] * squared / allowed**2)
    return result


def blend(colors: Float[np.ndarray, "K N 3"], weights: Float[np.ndarray, "K N"]) -> tuple[np.ndarray, np.ndarray]:
    """Robust weighted mean over K sources: colour (N, 3) and the weight it rests on (N,).

    Where several sources agree, one that differs loses its say (Geman-McClure about the weighted mean, three rounds,
    scale 0.25 in the logarithm of albedo).
    """
    weights = np.maximum(weights, 0)
    logs = np.log(np.maximum(colors, 0.003))
    robust = weights**2  # the best view leads, or small misalignments would blur every detail
    for _ in range(3):
        mean = (robust[..., None] * logs).sum(0) / np.maximum(robust.sum(0), 1e-12)[:, None]
        squared = ((logs - mean) ** 2).mean(-1) / 0.25**2
        robust = weights**2 / (1 + squared) ** 2
    total = np.maximum(robust.sum(0), 1e-12)
    return (robust[..., None] * colors).sum(0) / total[:, None], weights.max(axis=0)


def mirror_points(model: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """For every vertex the point of the mean face's surface across the plane x = 0: corners (V, 3) and weights (V, 3)."""
    mean = np.asarray(model.mean, np.float64)
    across = mean * [-1, 1, 1]
    distance, nearest = cKDTree(mean).query(across)
    corners, weights = np.repeat(nearest[:, None], 3, 1), np.tile(np.float32([1, 0, 0]), (len(mean), 1))
    if (off := distance > 0.2).any():
        found = closest_points(across[off], mean, np.asarray(model.faces))
        corners[off], weights[off] = np.asarray(model.faces)[found.face], found.barycentric
    return corners, weights


def _tone(
    model: FaceModel, texels: Texels, seen: np.ndarray, expected: np.ndarray, confidence: np.ndarray
) -> np.ndarray:
    """Seen albedo over the model's, as a field that is smooth over the mesh, at every texel, (N, 3).

    The logarithm of the ratio is known at vertices near seen texels and led on by Laplace's equation; far from
    everything seen it tends to the median ratio of the skin.
    """
    faces = np.asarray(model.faces)
    count = len(model.mean)
    corner = texels.mixing.indices.reshape(-1, 3)
    corner = corner[np.arange(len(corner)), texels.mixing.data.reshape(-1, 3).argmax(1)]
    # Eyeballs keep out: their white would bleach what is next to them.
    eyes = np.asarray(model.regions["eyes"])[corner] > 0.5
    weight = np.where(eyes, 0, confidence**2).astype(np.float64)
    ratio = np.clip(np.log(np.maximum(seen, 0.003)) - np.log(expected), -2, 2)
    total = np.bincount(corner, weight, count)
    sums = np.stack([np.bincount(corner, weight * ratio[:, c], count) for c in range(3)], 1)
    if total.sum() < 1e-6:
        return np.ones_like(expected)
    known = sums / np.maximum(total, 1e-12)[:, None]
    strength = np.clip(total / max(np.median(total[total > 0]), 1e-12), 0, 1)
    skin = strength * np.maximum(np.asarray(model.regions["skin"]), 1e-3) ** 2
    usual = np.array([_weighted_median(known[:, c], skin) for c in range(3)])
    # Vertices at one place (texture or part seams) count as one, or the tone could not pass over the seam.
    _, place = np.unique(np.round(np.asarray(model.mean, np.float64), 3), axis=0, return_inverse=True)
    place = place.ravel()
    places = place.max() + 1
    pull = np.bincount(place, strength, places)
    value = np.stack([np.bincount(place, strength * (known - usual)[:, c], places) for c in range(3)], 1)
    pairs = np.sort(place[np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])], axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    rows = np.repeat(np.arange(len(pairs)), 2)
    gradient = sparse.csr_matrix(
        (np.tile([1.0, -1.0], len(pairs)), (rows, pairs.ravel())), shape=(len(pairs), places)
    )
    system = sparse.diags(pull + 2e-3) + 8.0 * gradient.T @ gradient
    field = np.exp(usual + splu(system.tocsc()).solve(value))[place]
    return texels.mixing @ field.astype(np.float32)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(share, share[-1] / 2)]])


def _pad(texture: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Continues the colours over the gaps between the parts of the atlas, where filtering would else reach black."""
    if covered.all() or not covered.any():
        return texture
    _, label = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((label.max() + 1, 3), np.float32)
    table[label[covered]] = texture[covered]
    return table[label]
