"""One person's photographs to one `Fit`: start from landmarks or from an estimate, then landmarks and
colours together.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from facefit import cache
from facefit.errors import InputError
from facefit.fit.estimate import Estimate
from facefit.fit.observation import Observation, focal_groups, observe, sharing
from facefit.fit.placement import points_of
from facefit.fit.result import Fit, FittedView
from facefit.fit.settings import PRESETS, Settings
from facefit.fit.solver import DAMPING, Solution
from facefit.fit.stages import energies, run_stage
from facefit.fit.start import estimated_colors, start, start_colors
from facefit.fit.state import Shared, View, camera
from facefit.fit.surface import FittingSurface, PointBasis, fitting_surface
from facefit.metrics import landmark_rmse
from facefit.model import FaceModel
from facefit.photo import Photograph
from facefit.render.camera import intrinsics, project, to_camera
from facefit.starts import LANDMARKS

# Of the first step from an estimate: it has few, and from some a bold one goes too far time and again.
_ESTIMATED_DAMPING = 0.1


def fit_subject(
    photographs: Sequence[Photograph],
    model: FaceModel,
    preset: str | Settings = "default",
    focal_px: float | None = None,
    progress: Callable[[str, float], None] | None = None,
    estimate: Estimate | None = None,
) -> Fit:
    """Fits one person's photographs together: identity and albedo are shared, the rest is each photograph's
    own.

    Args:
        photographs: at least one, of one person.
        model: any model.
        preset: "fast", "default", "best", or one's own constants.
        focal_px: focal length of all photographs in pixels, if it is known.
        progress: called with the name of the stage and the fraction done.
        estimate: of the face in these photographs, from which the fit starts, in fewer steps; None starts
            from the mean face.

    Raises:
        InputError: no photographs, no such preset, or the estimate is of another model or other photographs.
    """
    if not photographs:
        raise InputError("there is no photograph to fit: give at least one")
    settings = _settings(preset)
    tell = progress or (lambda stage, fraction: None)
    clock = _Clock()

    if estimate is not None:
        _check_estimate(estimate, model, len(photographs))
        settings = settings.replace(
            landmark_steps=min(settings.landmark_steps, settings.estimated_landmark_steps),
            photometric_steps=min(settings.photometric_steps, settings.estimated_photometric_steps),
        )
    tell("preparing", 0.0)
    fitting = fitting_surface(model)
    groups = focal_groups(photographs)
    observations = sharing(
        [
            observe(photograph, settings, focal_px, group)
            for photograph, group in zip(photographs, groups, strict=True)
        ]
    )
    shared, views = start(fitting, observations, settings, estimate)
    observations = jax.device_put(observations)
    run = functools.partial(run_stage, fitting, observations)
    clock.lap("prepare")

    tell("landmarks", 0.2)
    damping = DAMPING if estimate is None else _ESTIMATED_DAMPING
    steps = settings.landmark_steps
    solution = run(shared, views, settings, photometric=False, steps=steps, damping=damping)
    jax.block_until_ready(solution)
    clock.lap("landmarks")

    tell("photometric", 0.5)
    if settings.photometric_steps:
        # Outliers are told from skin only once the light is about right; and on the way to dark skin a step
        # may pass through colours that are not plausible, which must not have it refused.
        lighting = settings.replace(
            photometric_outlier=2.0 * settings.photometric_outlier,
            negative_sigma=4.0 * settings.negative_sigma,
        )
        first = (settings.photometric_steps + 2) // 3
        if estimate is None:
            shared, views = start_colors(fitting, observations, solution.shared, solution.views)
        else:
            shared, views = estimated_colors(estimate, solution.shared, solution.views)
        solution = run(shared, views, lighting, photometric=True, steps=first)
        rest = settings.photometric_steps - first
        solution = run(solution.shared, solution.views, settings, photometric=True, steps=rest)
        jax.block_until_ready(solution)
    clock.lap("photometric")
    if settings.photometric_steps and len(photographs) > 1:
        tell("photographs together", 0.7)
        solution = _together(run, solution, settings)
        jax.block_until_ready(solution)
        clock.lap("together")

    tell("finishing", 0.9)
    colored = bool(settings.photometric_steps)
    solution = _calibrated(run, solution, settings, colored)
    final = energies(fitting, observations, solution.shared, solution.views, settings, colored)
    fit = _collect(photographs, model, fitting, observations, solution, final)
    clock.lap("finish")
    fit.report["start"] = LANDMARKS if estimate is None else estimate.source
    fit.report["seconds"] = clock.seconds
    tell("done", 1.0)
    return fit


def _check_estimate(estimate: Estimate, model: FaceModel, photographs: int) -> None:
    found = (
        estimate.identity.shape,
        estimate.albedo.shape,
        estimate.expressions.shape,
        estimate.lighting.shape,
    )
    identity, albedo = len(model.identity_basis), len(model.albedo_basis)
    wanted = (identity,), (albedo,), (photographs, len(model.expression_basis)), (photographs, 9, 3)
    if found != wanted:
        raise InputError(
            f"the estimate has identity, albedo, expressions and lighting of shapes {found}; {photographs} "
            f"photographs and the model {model.name} need {wanted}. Estimate the face from these photographs."
        )


def _together(run: Callable[..., Solution], solution: Solution, settings: Settings) -> Solution:
    """The geometry from comparing the photographs with each other. Albedo and light stay as they were found
    before: beside the paint they only have to explain what it leaves, and do not look like the person."""
    steps = settings.photometric_steps
    found = run(solution.shared, solution.views, settings, photometric=True, steps=steps, together=True)
    return found.replace(
        shared=found.shared.replace(albedo=solution.shared.albedo),
        views=tuple(
            new.replace(lighting=old.lighting) for new, old in zip(found.views, solution.views, strict=True)
        ),
        finite=found.finite & solution.finite,
    )


def _calibrated(
    run: Callable[..., Solution], solution: Solution, settings: Settings, colored: bool
) -> Solution:
    """The identity that is to be expected given the fitted one (its regression on it: James and Stein 1961
    shrink a mean for the same reason), and the views that belong to it.
    """
    shared = solution.shared.replace(identity=settings.identity_kept * solution.shared.identity)
    steps = settings.final_steps
    found = run(shared, solution.views, settings, photometric=colored, steps=steps, held=True)
    return found.replace(finite=found.finite & solution.finite)


def _settings(preset: str | Settings) -> Settings:
    if isinstance(preset, Settings):
        return preset
    if preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]


class _Clock:
    """Seconds between laps."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 4)
        self._last = now


@cache.remembered
def _project_landmarks(landmarks: PointBasis, shared: Shared, view: View, seen: Observation):
    """Projected landmarks in crop pixels, the focal length in crop pixels and the translation."""
    focal, translation = camera(shared.log_focal[seen.focal_group], view.pose, seen)
    placed = to_camera(points_of(landmarks, shared, view), view.pose.rotation, translation)
    return project(placed, intrinsics(focal, seen.principal)), focal, translation


def _collect(photographs, model, fitting: FittingSurface, observations, solution: Solution, final) -> Fit:
    shared, finite = jax.tree.map(np.asarray, solution.shared), bool(solution.finite)
    fitted = []
    for photograph, seen, view, found in zip(photographs, observations, solution.views, final, strict=True):
        pixels, focal, translation = jax.tree.map(
            np.asarray, _project_landmarks(fitting.landmarks, solution.shared, view, seen)
        )
        view = jax.tree.map(np.asarray, view)
        height, width = photograph.pixels.shape[:2]
        scale = float(seen.photo_px)
        centre = np.array([width / 2, height / 2], np.float32)
        in_photo = (pixels - seen.principal) * scale + centre
        if photograph.landmarks68 is not None:
            rmse = landmark_rmse(in_photo[468:], photograph.landmarks68)
        else:
            rmse = landmark_rmse(in_photo[:468], photograph.landmarks468[:, :2])
        fitted.append(
            FittedView(
                file=photograph.path,
                expression=view.expression,
                rotation=view.pose.rotation,
                translation=translation,
                focal_px=float(focal) * scale,
                center=centre,
                size=(height, width),
                lighting=view.lighting,
                landmarks68=in_photo[468:].astype(np.float32),
                landmark_rmse_px=rmse,
                landmark_rmse_percent=100.0 * rmse / (float(seen.unit) * scale),
                energies={name: float(value) for name, value in found.items()},
                outcome="fitted" if finite else "fitted, not converged",
            )
        )
    report = {
        "model": model.name,
        "landmark_rmse_px": float(np.sqrt(np.mean([view.landmark_rmse_px**2 for view in fitted]))),
        "converged": finite,
    }
    return Fit(model, shared.identity, shared.albedo, tuple(fitted), report)
