"""How far a result is from the truth: landmarks in pictures, and surfaces as the NoW benchmark has it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from facefit.model.proximity import closest_points
from facefit.model.registration import Similarity, similarity
from facefit.rotations import matrix_from_axis_angle

NOW_POINTS = (36, 39, 42, 45, 33, 48, 54)  # iBUG indices of the seven landmarks of NoW, in its order


def landmark_rmse(points: Float[np.ndarray, "L 2"], truth: Float[np.ndarray, "L 2"]) -> float:
    """Root of the mean squared distance between matching points, in their unit."""
    return float(np.sqrt(((np.asarray(points) - truth) ** 2).sum(axis=-1).mean()))


def nme_box(
    points: Float[np.ndarray, "L 2"], truth: Float[np.ndarray, "L 2"], box: tuple[float, float, float, float]
) -> float:
    """Mean distance between matching points in percent of the face box's size, the root of its area.

    Args:
        box: (x0, y0, x1, y1), pixels.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= 0 or height <= 0:
        raise ValueError(f"box: {box} has no area")
    distance = np.linalg.norm(np.asarray(points, np.float64) - truth, axis=-1)
    return float(100 * distance.mean() / np.sqrt(width * height))


class SurfaceError(NamedTuple):
    """Distances of the scan's points to the aligned prediction, mm, and how the prediction was moved."""

    median: float
    mean: float
    std: float
    distances: np.ndarray
    alignment: Similarity


def now_crop(
    scan_points: Float[np.ndarray, "N 3"], landmarks: Float[np.ndarray, "7 3"], factor: float = 1.0
) -> np.ndarray:
    """Which points of a scan NoW compares, (N,) boolean: a ball about the middle of the face.

    Args:
        landmarks: the seven points of `NOW_POINTS` on the scan.
        factor: of the ball's radius.
    """
    landmarks = np.asarray(landmarks, np.float64)
    bridge = (landmarks[1] + landmarks[2]) / 2
    centre = landmarks[4] + 0.3 * (bridge - landmarks[4])
    radius = 0.7 * (np.linalg.norm(landmarks[0] - landmarks[3]) + np.linalg.norm(bridge - landmarks[4]))
    return np.linalg.norm(np.asarray(scan_points) - centre, axis=1) < factor * radius


def surface_error(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    landmarks: Float[np.ndarray, "7 3"],
    scan_points: Float[np.ndarray, "N 3"],
    scan_landmarks: Float[np.ndarray, "7 3"],
    scale: bool = True,
    iterations: int = 20,
    points: int = 1500,
) -> SurfaceError:
    """Aligns a predicted mesh to a scan as NoW does and measures every scan point's distance to it.

    Start: similarity of the seven landmarks. Then Gauss-Newton on the robust (Geman-McClure, 5 mm) distances
    of the scan's points to the predicted surface. NoW itself uses a dogleg on plain squares; both end in the
    same minimum where the face is covered. Crop the scan first (`now_crop`).

    Args:
        scale: False is NoW's metrical variant: only rotation and translation.
        points: scan points that drive the alignment, an even selection; all are measured.
    """
    vertices, scan_points = np.asarray(vertices, np.float64), np.asarray(scan_points, np.float64)
    alignment = similarity(landmarks, scan_landmarks, scale)
    driving = scan_points[:: max(1, len(scan_points) // points)]

    def closest(query: np.ndarray, at: Similarity) -> tuple[np.ndarray, np.ndarray]:
        local = (query - at.translation) @ at.rotation / at.scale
        found = closest_points(local, vertices, faces)
        return at(found.position), at.scale * found.distance

    def cost(distance: np.ndarray) -> float:
        return float((distance**2 / (1 + (distance / 5) ** 2)).sum())

    position, distance = closest(driving, alignment)
    for _ in range(iterations):
        centre = position.mean(axis=0)
        arm, away = position - centre, driving - position
        normal = away / np.maximum(distance, 1e-9)[:, None]
        columns = [np.cross(arm, normal), normal] + ([(arm * normal).sum(1)[:, None]] if scale else [])
        jacobian = np.concatenate(columns, axis=1)
        weight = 1 / (1 + (distance / 5) ** 2) ** 2
        normal_matrix = (jacobian * weight[:, None]).T @ jacobian
        normal_matrix += np.diag(np.diag(normal_matrix)) * 1e-6 + 1e-9 * np.eye(len(normal_matrix))
        full = np.linalg.solve(normal_matrix, (jacobian * weight[:, None]).T @ distance)
        for length in (1.0, 0.5, 0.25, 0.1):
            step = length * full
            turn = np.asarray(matrix_from_axis_angle(step[:3].astype(np.float32)), np.float64)
            factor = float(np.exp(step[6])) if scale else 1.0
            moved = Similarity(
                alignment.scale * factor,
                turn @ alignment.rotation,
                factor * turn @ (alignment.translation - centre) + centre + step[3:6],
            )
            new_position, new_distance = closest(driving, moved)
            if cost(new_distance) < cost(distance):
                break
        else:
            break
        gain = 1 - cost(new_distance) / cost(distance)
        alignment, position, distance = moved, new_position, new_distance
        if gain < 1e-5:
            break
    distances = closest(scan_points, alignment)[1]
    return SurfaceError(
        float(np.median(distances)), float(distances.mean()), float(distances.std()), distances, alignment
    )
