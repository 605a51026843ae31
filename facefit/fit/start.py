"""The pose a fit starts from: one linear solve from landmarks, no search.

On the host: compiling it would take far longer than running it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from facefit.fit.observation import Observation
from facefit.fit.settings import Settings
from facefit.fit.state import Pose, Shared, View
from facefit.fit.surface import FittingSurface
from facefit.model.registration import similarity

_HALF_TURN = (1.0, -1.0, -1.0)
# Focal lengths a subject has room for; more cameras than that, and the room doubles until they fit.
_CAMERAS = 8


def scaled_orthographic(
    source: Float[np.ndarray, "L 3"], target: Float[np.ndarray, "L 2"]
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "2"]]:
    """Scale, rotation and offset of the parallel projection that takes `source` nearest to `target`.

    The affine least-squares solution, made orthogonal (DeMenthon and Davis 1995).
    """
    centre = source.mean(0)
    matrix, *_ = np.linalg.lstsq(source - centre, target - target.mean(0))
    rows = matrix.T
    scale = max(float(np.sqrt(np.linalg.norm(rows[0]) * np.linalg.norm(rows[1]))), 1e-12)
    u, _, vt = np.linalg.svd(np.concatenate([rows, np.cross(rows[0], rows[1])[None] / scale]))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return scale, rotation, target.mean(0) - scale * (rotation @ centre)[:2]


def start(
    fitting: FittingSurface, observations: Sequence[Observation], settings: Settings
) -> tuple[Shared, tuple[View, ...]]:
    """The mean face, neutral, under ambient light, with the pose that its landmarks suggest; each focal
    length a compromise of its prior and of the face's usual distance.
    """
    placed = [_view(fitting, observation, settings) for observation in observations]
    groups = np.array([int(observation.focal_group) for observation in observations])
    room = _CAMERAS
    while room <= groups.max():
        room *= 2
    log_focal = np.full(room, 7.0)
    for group in np.unique(groups):
        log_focal[group] = np.mean([placed[n][1] for n in np.flatnonzero(groups == group)])
    shared = Shared(
        identity=np.zeros(fitting.surface.identity_basis.shape[0], np.float32),
        albedo=np.zeros(fitting.surface.albedo_basis.shape[0], np.float32),
        log_focal=log_focal.astype(np.float32),
    )
    return shared, tuple(view for view, _ in placed)


def _view(fitting: FittingSurface, observation: Observation, settings: Settings) -> tuple[View, float]:
    """Where one photograph starts, and the logarithm of its focal length."""
    points = np.asarray(fitting.landmarks.mean, np.float64) * _HALF_TURN
    if observation.weight468 > 0:
        scale, rotation, offset = similarity(points[:468], observation.points468)
        where = observation.points468[:, :2]
    else:
        # Jaw points slide on the face; the rest stays put.
        firm = observation.points68[17:].astype(np.float64)
        scale, rotation, offset = scaled_orthographic(points[468 + 17 :], firm)
        where = np.broadcast_to(observation.points68.mean(0), (468, 2))
    scale = max(scale, 1e-3)
    # What the ambient light must be for the mean albedo to look like the photograph, from the landmarks,
    # which are on the face whatever the background is. The upper quartile is skin: eyes, lips, beards and
    # shadows are darker, and starting too dark would make outliers of the skin.
    albedo = np.asarray(fitting.surface.albedo_mean)[np.asarray(fitting.landmark_corner)[:468]].mean(1)
    column, row = np.clip(where.astype(np.int32), 0, observation.image.shape[0] - 1).T
    ratio = np.quantile(observation.image[row, column] / np.maximum(albedo, 0.02), 0.75, axis=0)
    light = np.clip(ratio, 0.02, 8.0)
    ambient = np.zeros((9, 3), np.float32)
    color = 0.0 if observation.grey else 0.5
    ambient[0] = color * light + (1 - color) * light.mean()
    view = View(
        expression=np.zeros(fitting.surface.expression_basis.shape[0], np.float32),
        pose=Pose(
            rotation=cv2.Rodrigues(rotation)[0].ravel().astype(np.float32),
            place=offset[:2].astype(np.float32),
            log_scale=np.float32(np.log(scale)),
        ),
        lighting=ambient,
        depth_zero=np.float32(offset[2] if len(offset) > 2 else 0.0),
    )
    # Two guesses of the focal length, one from the face's distance and one from the picture's size or EXIF.
    by_distance = np.log(scale * settings.distance_mm * observation.photo_px)
    a, b = settings.distance_log_sigma**-2, observation.log_focal_sigma**-2
    return view, float((a * by_distance + b * observation.log_focal) / (a + b))
