"""Closest points on triangle meshes, on the host: what metrics and the transfer between models stand on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree  # JAX itself requires scipy, so this is no further dependency


class Closest(NamedTuple):
    """Closest surface points: triangle (N,), barycentric weights (N, 3), position (N, 3), distance (N,).

    Where no triangle was acceptable, triangle is -1 and distance is infinite.
    """

    face: np.ndarray
    barycentric: np.ndarray
    position: np.ndarray
    distance: np.ndarray


def closest_points(
    points: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None = None,
    min_cosine: float = 0.0,
    candidates: int = 12,
) -> Closest:
    """Closest point of a mesh for every query point; exact (not only among a fixed number of candidates).

    Args:
        points: (N, 3).
        vertices: (V, 3).
        faces: (F, 3).
        normals: of the query points, (N, 3); with them only triangles whose own normal has a cosine of more
            than `min_cosine` with it are accepted, among the 4 * `candidates` nearest of every size.
        candidates: triangles tried first; more are tried where they cannot be ruled out.
    """
    points = np.asarray(points, np.float64).reshape(-1, 3)
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)]
    centres = corners.mean(axis=1)
    radius = np.linalg.norm(corners - centres[:, None], axis=2).max(axis=1)
    directions = None
    if normals is not None:
        normals = np.asarray(normals, np.float64)
        directions = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-20)
        candidates *= 4
    result = Closest(
        np.full(len(points), -1, np.int32),
        np.zeros((len(points), 3)),
        np.full((len(points), 3), np.nan),
        np.full(len(points), np.inf),
    )
    # Triangles of like size together, small ones first: how far a triangle reaches from its centre bounds the
    # search, and a few large triangles would else make it look at thousands of small ones.
    size = np.ceil(np.log2(np.maximum(radius, 1e-12) / max(np.median(radius), 1e-12))).clip(0)
    for step in np.unique(size):
        group = np.flatnonzero(size == step)
        reach, tree = radius[group].max(), cKDTree(centres[group])
        pending = np.arange(len(points))
        count = min(candidates, len(group))
        while len(pending):
            centre_distance, nearest = tree.query(points[pending], k=count)
            centre_distance = centre_distance.reshape(len(pending), -1)
            index = group[nearest.reshape(len(pending), -1)]
            hopeful = centre_distance[:, 0] < result.distance[pending] + reach
            pending, centre_distance, index = pending[hopeful], centre_distance[hopeful], index[hopeful]
            weights, position = _closest_on_triangles(points[pending, None], corners[index])
            distance = np.linalg.norm(position - points[pending, None], axis=2)
            if directions is not None:
                agreement = np.einsum("nkc,nc->nk", directions[index], normals[pending])
                distance = np.where(agreement > min_cosine, distance, np.inf)
            row, best = np.arange(len(pending)), distance.argmin(axis=1)
            better = distance[row, best] < result.distance[pending]
            ids, row, best = pending[better], row[better], best[better]
            result.face[ids] = index[row, best]
            result.barycentric[ids] = weights[row, best]
            result.position[ids] = position[row, best]
            result.distance[ids] = distance[row, best]
            if directions is not None or count == len(group):
                break
            pending = pending[centre_distance[:, -1] < result.distance[pending] + reach]
            count = min(4 * count, len(group))
    return result


def _closest_on_triangles(points: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric weights and position of the closest point of each triangle (..., 3, 3) (Ericson 2005,
    5.1.5).
    """
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, points - a
    d1, d2 = (ab * ap).sum(-1), (ac * ap).sum(-1)
    aa, bb, cc = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    determinant = aa * cc - bb * bb
    safe = np.where(determinant > 0, determinant, 1)
    v, w = (cc * d1 - bb * d2) / safe, (aa * d2 - bb * d1) / safe
    inside = (v >= 0) & (w >= 0) & (v + w <= 1) & (determinant > 0)
    weights = np.stack([1 - v - w, v, w], -1)
    best = np.full(d1.shape, np.inf)
    edge_weights = np.zeros_like(weights)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[..., j, :] - corners[..., i, :]
        length = np.maximum((edge * edge).sum(-1), 1e-30)
        t = np.clip((edge * (points - corners[..., i, :])).sum(-1) / length, 0, 1)
        distance = np.linalg.norm(corners[..., i, :] + t[..., None] * edge - points, axis=-1)
        better = distance < best
        best = np.where(better, distance, best)
        candidate = np.zeros_like(weights)
        candidate[..., i], candidate[..., j] = 1 - t, t
        edge_weights = np.where(better[..., None], candidate, edge_weights)
    weights = np.where(inside[..., None], weights, edge_weights)
    return weights, np.einsum("...k,...kc->...c", weights, corners)
