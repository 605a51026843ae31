"""Bringing one surface onto another: similarity, thin-plate warp, and a smooth fit to the closest points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from facefit.model.proximity import closest_points


class Similarity(NamedTuple):
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Transformed points, (..., 3)."""
        return self.scale * np.asarray(points) @ self.rotation.T + self.translation


def similarity(source: np.ndarray, target: np.ndarray, scale: bool = True) -> Similarity:
    """The similarity (without `scale`: the rigid motion) that takes `source` (N, 3) closest to `target`.

    Least squares, proper rotation (Umeyama 1991).
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_centre, target_centre = source.mean(axis=0), target.mean(axis=0)
    u, singular, vt = np.linalg.svd((target - target_centre).T @ (source - source_centre))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    factor = float((singular * sign).sum() / ((source - source_centre) ** 2).sum()) if scale else 1.0
    return Similarity(factor, rotation, target_centre - factor * rotation @ source_centre)


def thin_plate(
    source: np.ndarray, target: np.ndarray, query: np.ndarray, smoothing: float = 0.0
) -> np.ndarray:
    """The smoothest map of space that takes `source` (N, 3) to `target` (N, 3), applied to `query` (Q, 3).

    Biharmonic spline of three dimensions: an affine map plus a sum of |x - source|. `smoothing` (in the
    unit of the points) lets it miss the targets, more where they contradict each other.
    """
    source, target, query = (np.asarray(a, np.float64) for a in (source, target, query))
    count = len(source)

    def distances(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    system = np.zeros((count + 4, count + 4))
    system[:count, :count] = -distances(source, source) + smoothing * np.eye(count)
    system[:count, count] = system[count, :count] = 1
    system[:count, count + 1 :] = source
    system[count + 1 :, :count] = source.T
    solution = np.linalg.lstsq(system, np.concatenate([target - source, np.zeros((4, 3))]), rcond=None)[0]
    offset = -distances(query, source) @ solution[:count] + solution[count] + query @ solution[count + 1 :]
    return query + offset


def smooth_fit(
    vertices: np.ndarray,
    faces: np.ndarray,
    target_vertices: np.ndarray,
    target_faces: np.ndarray,
    reach: float = 15.0,
    stiffness: tuple[float, ...] = (300.0, 60.0, 12.0),
) -> np.ndarray:
    """Moves a mesh that already lies near a target onto it, smoothly.

    Every round finds the closest compatible target point (normals within 60 degrees, at most `reach` away) of
    each vertex and solves for the field of displacements that follows them while its Laplacian stays small.

    Args:
        vertices, faces: the mesh to move, (V, 3), (F, 3).
        target_vertices, target_faces: where to.
        reach: millimetres.
        stiffness: weight of the smoothness in each round.
    """
    moved = np.array(vertices, np.float64)
    edges = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0
    )
    rows = np.repeat(np.arange(len(edges)), 2)
    gradient = sparse.csr_matrix(
        (np.tile([1.0, -1.0], len(edges)), (rows, edges.ravel())), shape=(len(edges), len(moved))
    )
    laplacian = (gradient.T @ gradient).tocsc()
    for weight in stiffness:
        closest = closest_points(moved, target_vertices, target_faces, vertex_normals(moved, faces), 0.5, 4)
        near = np.where(closest.face >= 0, np.exp(-((closest.distance / reach) ** 2)), 0.0)
        near[closest.distance > 2 * reach] = 0.0
        pull = np.where(near[:, None] > 0, closest.position - moved, 0.0)
        system = sparse.diags(near + 1e-4) + weight * laplacian
        moved = moved + splu(system.tocsc()).solve(near[:, None] * pull)
    return moved


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals of the vertices, area weighted, (V, 3); zero where a vertex has no triangle."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros(np.shape(vertices))
    for k in range(3):
        np.add.at(total, faces[:, k], normal)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)
