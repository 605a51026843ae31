"""Where a fit starts from: linear solves for pose, then for skin tone and light; no search. Where somebody
has looked at the photographs before (`facefit.fit.estimate`), only the pose is left to solve for.

On the host: compiling it would take far longer than running it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from facefit.fit.estimate import Estimate
from facefit.fit.observation import Observation
from facefit.fit.settings import Settings
from facefit.fit.state import Pose, Shared, View
from facefit.fit.surface import FittingSurface
from facefit.model.registration import similarity

_HALF_TURN = (1.0, -1.0, -1.0)
# Focal lengths a subject has room for; more cameras than that, and the room doubles until they fit.
_CAMERAS = 8
# The darkest and the brightest skin, as a multiple of the mean albedo, and how well a landmark tells it.
_TONES, _TONE_SIGMA = (0.08, 1.6), 0.3
_TELLING = slice(0, 468, 8)  # one landmark in eight


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


def in_perspective(
    scale: float,
    rotation: Float[np.ndarray, "3 3"],
    middle: Float[np.ndarray, "3"],
    seen: Float[np.ndarray, "2"],
    focal: float,
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """The rotation and translation under which a camera sees about what a parallel projection shows.

    A face aside the middle of the picture is looked at from aside: parallel projection describes it along
    the ray to it, and not along the camera's axis.

    Args:
        scale, rotation: of the parallel projection, pixels per millimetre. middle: of the points.
        seen: where it shows `middle`, pixels from the principal point.
    """
    ray = np.append(seen / focal, 1.0)
    ray /= np.linalg.norm(ray)
    axis = np.cross([0.0, 0.0, 1.0], ray)
    length = np.linalg.norm(axis)
    turn = cv2.Rodrigues(axis / max(length, 1e-12) * np.arctan2(length, ray[2]))[0]
    # Millimetres are f / (D cos^2) pixels along the way from the axis at the distance D, f / (D cos) across.
    depth = focal / (scale * np.sqrt(ray[2]))
    translation = depth * ray / ray[2] - turn @ rotation @ middle
    translation[2] = max(translation[2], 1.0)
    return turn @ rotation, translation


def start(
    fitting: FittingSurface,
    observations: Sequence[Observation],
    settings: Settings,
    estimate: Estimate | None = None,
) -> tuple[Shared, tuple[View, ...]]:
    """The mean face, neutral, or the estimated one, under white ambient light, with the pose that its
    landmarks suggest; each focal length a compromise of its prior and of the face's usual distance.
    """
    identity = np.zeros(fitting.surface.identity_basis.shape[0], np.float32)
    expressions = np.zeros((len(observations), fitting.surface.expression_basis.shape[0]), np.float32)
    if estimate is not None:
        identity, expressions = estimate.identity, estimate.expressions
    placed = [
        _view(fitting, observation, settings, identity, expression)
        for observation, expression in zip(observations, expressions, strict=True)
    ]
    groups = np.array([int(observation.focal_group) for observation in observations])
    room = _CAMERAS
    while room <= groups.max():
        room *= 2
    log_focal = np.full(room, 7.0)
    for group in np.unique(groups):
        log_focal[group] = np.mean([placed[n][1] for n in np.flatnonzero(groups == group)])
    shared = Shared(
        identity=np.asarray(identity, np.float32),
        albedo=np.zeros(fitting.surface.albedo_basis.shape[0], np.float32),
        log_focal=log_focal.astype(np.float32),
    )
    return shared, tuple(view for view, _ in placed)


def _view(
    fitting: FittingSurface,
    observation: Observation,
    settings: Settings,
    identity: Float[np.ndarray, " I"],
    expression: Float[np.ndarray, " E"],
) -> tuple[View, float]:
    """Where one photograph starts, and the logarithm of its focal length."""
    points = np.asarray(fitting.landmarks.mean, np.float64)
    if identity.any() or expression.any():
        points = points + np.asarray(fitting.landmarks.basis) @ np.concatenate([identity, expression])
    points = points * _HALF_TURN
    if observation.weight468 > 0:
        points = points[:468]
        scale, rotation, offset = similarity(points, observation.points468)
    else:
        # Jaw points slide on the face; the rest stays put.
        points = points[468 + 17 :]
        scale, rotation, offset = scaled_orthographic(points, observation.points68[17:].astype(np.float64))
    scale = max(scale, 1e-3)
    # Two guesses of the focal length, one from the face's distance and one from the picture's size or EXIF.
    by_distance = np.log(scale * settings.distance_mm * observation.photo_px)
    a, b = settings.distance_log_sigma**-2, observation.log_focal_sigma**-2
    log_focal = float((a * by_distance + b * observation.log_focal) / (a + b))
    focal = float(np.exp(log_focal) / observation.photo_px)
    middle = points.mean(0)
    seen = scale * (rotation @ middle)[:2] + offset[:2]
    rotation, translation = in_perspective(scale, rotation, middle, seen - observation.principal, focal)
    scale = focal / translation[2]
    depth_zero = 0.0
    if observation.weight468 > 0:  # the network's depths and the face's have the same mean
        depth_zero = observation.points468[:, 2].mean() - scale * (rotation @ middle)[2]
    ambient = np.zeros((9, 3), np.float32)
    ambient[0] = 1.0
    view = View(
        expression=np.asarray(expression, np.float32),
        pose=Pose(
            rotation=cv2.Rodrigues(rotation)[0].ravel().astype(np.float32),
            place=np.float32(observation.principal + scale * translation[:2]),
            log_scale=np.float32(np.log(scale)),
        ),
        lighting=ambient,
        depth_zero=np.float32(depth_zero),
    )
    return view, log_focal


def _brightness(fitting: FittingSurface, observation: Observation) -> Float[np.ndarray, "3"]:
    """What the ambient light must be for the mean albedo to look like the photograph.

    From the landmarks, which are on the face whatever the background is. The upper quartile is skin: eyes,
    lips, beards and shadows are darker, and starting too dark would make outliers of the skin.
    """
    if observation.weight468 > 0:
        where = np.asarray(observation.points468)[:, :2]
    else:
        where = np.broadcast_to(np.asarray(observation.points68).mean(0), (468, 2))
    image = np.asarray(observation.image)
    albedo = np.asarray(fitting.surface.albedo_mean)[np.asarray(fitting.landmark_corner)[:468]].mean(1)
    column, row = np.clip(where.astype(np.int32), 0, image.shape[0] - 1).T
    ratio = np.quantile(image[row, column] / np.maximum(albedo, 0.02), 0.75, axis=0)
    light = np.clip(ratio, 0.02, 8.0)
    color = 0.0 if observation.grey else 0.5
    return color * light + (1 - color) * light.mean()


def start_colors(
    fitting: FittingSurface, observations: Sequence[Observation], shared: Shared, views: Sequence[View]
) -> tuple[Shared, tuple[View, ...]]:
    """Albedo and ambient light with which the skin is about as bright as in the photographs.

    Light is about one by the exposure's prior, so most of what a photograph is darker than the mean face is
    the skin's tone. The solver would get there by itself, but not in one step: sRGB is so much steeper near
    black that a step from bright skin towards dark ends beyond black.
    """
    seen = np.array([_brightness(fitting, observation) for observation in observations])
    tone = np.clip(np.exp(np.log(seen).mean(0)), *_TONES)
    corner = np.asarray(fitting.landmark_corner)[_TELLING]
    mean = np.asarray(fitting.surface.albedo_mean)[corner].mean(1)
    basis = np.asarray(fitting.albedo_basis)[corner].mean(1)
    scale = (_TONE_SIGMA * np.maximum(mean, 0.02)).reshape(-1)
    rows = basis.reshape(len(scale), -1) / scale[:, None]
    wanted = ((tone - 1.0) * mean).reshape(-1) / scale
    albedo = np.linalg.solve(rows.T @ rows + np.eye(rows.shape[1]), rows.T @ wanted)
    reached = np.maximum((mean + basis @ albedo).mean(0) / mean.mean(0), _TONES[0])
    lit = []
    for view, brightness in zip(views, seen, strict=True):
        lighting = np.zeros((9, 3), np.float32)
        lighting[0] = brightness / reached
        lit.append(view.replace(lighting=lighting))
    return shared.replace(albedo=albedo.astype(np.float32)), tuple(lit)


def estimated_colors(
    estimate: Estimate, shared: Shared, views: Sequence[View]
) -> tuple[Shared, tuple[View, ...]]:
    """Albedo and light as estimated. Only after the landmarks: while nothing is known of colours, their
    priors would draw them away.
    """
    lit = tuple(
        view.replace(lighting=np.asarray(lighting, np.float32))
        for view, lighting in zip(views, estimate.lighting, strict=True)
    )
    return shared.replace(albedo=np.asarray(estimate.albedo, np.float32)), lit
