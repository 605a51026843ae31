"""Arranges the texture atlas of a head: without the body's share, the face magnified and upright."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components

STRIP = 0.18  # height of the strip below the head that holds the small parts
GAP = 0.008  # between parts, and around the atlas: 8 texels of 1024
FACE_SHARE = (0.64, 0.76)  # of the head's width and height in the atlas that the face gets


def arrange(
    uv: Float[np.ndarray, "T 2"],
    uv_faces: Int[np.ndarray, "F 3"],
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    face: Bool[np.ndarray, " V"],
    eyes: Bool[np.ndarray, " V"],
) -> Float[np.ndarray, "T 2"]:
    """New texture coordinates for the same triangles; parts stay in one piece, nothing folds or overlaps.

    The part that holds the face is turned by quarter turns until the face is upright, and stretched along
    each axis by a smooth monotone function that gives the face its share. Eyes and other parts stand side by
    side in a strip below, sized by their area on the head, eyes twice.

    Args:
        uv: as in OBJ, origin at the lower left.
        face: vertices of the face proper (without ears, neck and scalp), which get the resolution.
        eyes: vertices of the eyeballs.
    """
    count = len(uv)
    edges = np.concatenate([uv_faces[:, [0, 1]], uv_faces[:, [1, 2]]])
    graph = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    part = connected_components(graph, directed=False)[1]
    part_of_face = part[uv_faces[:, 0]]
    is_face = face[faces].all(axis=1)
    head = np.bincount(part_of_face[is_face]).argmax()
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2

    result = np.zeros_like(uv, dtype=np.float64)
    main = part_of_face == head
    main_ids = np.unique(uv_faces[main])
    turned = _upright(uv, uv_faces[main & is_face], vertices, faces[main & is_face])
    face_ids = np.unique(uv_faces[main & is_face])
    for axis, (low, length) in enumerate(((GAP, 1 - 2 * GAP), (STRIP + GAP, 1 - STRIP - 2 * GAP))):
        inner = turned[face_ids, axis].min(), turned[face_ids, axis].max()
        result[main_ids, axis] = low + length * _magnified(turned[main_ids, axis], inner, FACE_SHARE[axis])

    boxes = []
    for name in np.unique(part_of_face):
        if name == head:
            continue
        chosen = part_of_face == name
        ids = np.unique(uv_faces[chosen])
        low, high = uv[ids].min(axis=0), uv[ids].max(axis=0)
        weight = 4.0 if eyes[faces[chosen]].mean() > 0.5 else 1.0
        scale = np.sqrt(weight * area[chosen].sum() / np.prod(high - low))
        boxes.append((ids, low, (high - low) * scale, scale))
    if boxes:
        widest, tallest = sum(box[2][0] for box in boxes), max(box[2][1] for box in boxes)
        shrink = min((1 - GAP * (len(boxes) + 1)) / widest, (STRIP - GAP) / tallest)
        left = GAP
        for ids, low, extent, scale in boxes:
            result[ids] = (uv[ids] - low) * scale * shrink + (left, GAP)
            left += extent[0] * shrink + GAP
    return result


def _upright(uv: np.ndarray, uv_faces: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`uv` after the quarter turn that makes the head's y point up in the given triangles."""
    ids, first = np.unique(uv_faces.ravel(), return_index=True)
    height = vertices[faces.ravel()[first], 1]
    centred = uv[ids] - uv[ids].mean(axis=0)
    slope = np.linalg.lstsq(centred, height - height.mean(), rcond=None)[0]
    quarter = int(np.round((np.pi / 2 - np.arctan2(slope[1], slope[0])) / (np.pi / 2))) % 4
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    return uv @ np.array([[cosine, sine], [-sine, cosine]], np.float64)


def _magnified(values: np.ndarray, inner: tuple[float, float], share: float) -> np.ndarray:
    """A smooth increasing map of `values` onto [0, 1] in which `inner` gets about `share` of the length."""
    low, high = values.min(), values.max()
    grid = np.linspace(low, high, 2001)
    portion = (inner[1] - inner[0]) / (high - low)
    rise = 0.12 * (inner[1] - inner[0])
    inside = 1 / (1 + np.exp(-4 * np.minimum(grid - inner[0], inner[1] - grid) / rise))
    gain = max(share * (1 - portion) / ((1 - share) * portion), 1.0)
    total = np.concatenate([[0], np.cumsum(1 + (gain - 1) * (inside[1:] + inside[:-1]) / 2)])
    return np.interp(values, grid, total / total[-1])
