"""One person's photographs to one `Fit`: start from landmarks, then landmarks and colours together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from facefit import cache
from facefit.errors import InputError
from facefit.fit.observation import Observation, focal_groups, observe, stack
from facefit.fit.paint import no_paint
from facefit.fit.result import Fit, FittedView
from facefit.fit.settings import PRESETS, Settings
from facefit.fit.solver import Solution
from facefit.fit.stages import energies, run_stage
from facefit.fit.start import start
from facefit.fit.state import Shared, View, camera
from facefit.fit.surface import FittingSurface, PointBasis, fitting_surface
from facefit.fit.terms import points_of
from facefit.model import FaceModel
from facefit.photo import Photograph
from facefit.render.camera import intrinsics, project, to_camera

_start = cache.remembered(start, static_argnames=("groups", "drifts"))


def fit_subject(
    photographs: Sequence[Photograph],
    model: FaceModel,
    preset: str | Settings = "default",
    focal_px: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Fit:
    """Fits one person's photographs together: identity and albedo are shared, the rest is each photograph's
    own.

    Args:
        photographs: at least one, of one person.
        model: any model.
        preset: "fast", "default", "best", or one's own constants.
        focal_px: focal length of all photographs in pixels, if it is known.
        progress: called with the name of the stage and the fraction done.

    Raises:
        InputError: no photographs, or no such preset.
    """
    if not photographs:
        raise InputError("there is no photograph to fit: give at least one")
    settings = _settings(preset)
    tell = progress or (lambda stage, fraction: None)
    clock = _Clock()

    tell("preparing", 0.0)
    fitting = fitting_surface(model)
    groups = focal_groups(photographs)
    observations = stack(
        [
            observe(photograph, settings, focal_px, group)
            for photograph, group in zip(photographs, groups, strict=True)
        ]
    )
    shared, views = _start(
        fitting_model_for_start(model),
        observations,
        groups=len(photographs),
        drifts=fitting.drift.modes.shape[-1],
        settings=settings,
    )
    clock.lap("prepare")

    tell("landmarks", 0.2)
    solution = run_stage(
        fitting, observations, shared, views, settings, photometric=False, steps=settings.landmark_steps
    )
    jax.block_until_ready(solution)
    clock.lap("landmarks")

    tell("photometric", 0.5)
    if settings.photometric_steps:
        # Outliers are told from skin only once the light is about right.
        lighting = settings.replace(photometric_outlier=2.0 * settings.photometric_outlier)
        first = (settings.photometric_steps + 2) // 3
        solution = run_stage(fitting, observations, solution.shared, solution.views, lighting, True, first)
        rest = settings.photometric_steps - first
        solution = run_stage(fitting, observations, solution.shared, solution.views, settings, True, rest)
        jax.block_until_ready(solution)
    clock.lap("photometric")
    if settings.photometric_steps and len(photographs) > 1:
        tell("photographs together", 0.7)
        solution = _together(fitting, observations, solution, settings)
        jax.block_until_ready(solution)
        clock.lap("together")

    tell("finishing", 0.9)
    final = energies(
        fitting,
        observations,
        no_paint(fitting, observations),
        solution.shared,
        solution.views,
        settings,
        bool(settings.photometric_steps),
    )
    fit = _collect(photographs, model, fitting, observations, solution, final)
    clock.lap("finish")
    fit.report["seconds"] = clock.seconds
    tell("done", 1.0)
    return fit


def _together(
    fitting: FittingSurface, observations: Observation, solution: Solution, settings: Settings
) -> Solution:
    """The geometry from comparing the photographs with each other. Albedo and light stay as they were found
    before: beside the paint they only have to explain what it leaves, and do not look like the person."""
    found = run_stage(
        fitting,
        observations,
        solution.shared,
        solution.views,
        settings.replace(photometric_count=settings.together_count),
        photometric=True,
        steps=settings.photometric_steps,
        together=True,
    )
    return found.replace(
        shared=found.shared.replace(albedo=solution.shared.albedo),
        views=found.views.replace(lighting=solution.views.lighting),
        finite=found.finite & solution.finite,
    )


def fitting_model_for_start(model: FaceModel) -> FaceModel:
    """The model without its bases' weight: `start` reads the mean and the landmarks alone."""
    return model.replace(uv=jnp.zeros((0, 2)), uv_faces=jnp.zeros((0, 3), jnp.int32), regions={})


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
def _project_views(landmarks: PointBasis, observations: Observation, shared: Shared, views: View):
    """Projected landmarks in crop pixels, and each camera, for every view."""

    def one(view, seen):
        focal, translation = camera(shared.log_focal[seen.focal_group], view.pose, seen)
        placed = to_camera(points_of(landmarks, shared, view), view.pose.rotation, translation)
        return project(placed, intrinsics(focal, seen.principal)), focal, translation

    return jax.vmap(one)(views, observations)


def _collect(photographs, model, fitting: FittingSurface, observations, solution, final) -> Fit:
    shared, views = jax.tree.map(np.asarray, (solution.shared, solution.views))
    finite = bool(solution.finite)
    pixels, focal, translation = jax.tree.map(
        np.asarray, _project_views(fitting.landmarks, observations, solution.shared, solution.views)
    )
    fitted = []
    for n, photograph in enumerate(photographs):
        height, width = photograph.pixels.shape[:2]
        scale = float(observations.photo_px[n])
        principal = np.asarray(observations.principal[n])
        centre = np.array([width / 2, height / 2], np.float32)
        in_photo = (pixels[n] - principal) * scale + centre
        if photograph.landmarks68 is not None:
            difference = in_photo[468:] - photograph.landmarks68
        else:
            difference = in_photo[:468] - photograph.landmarks468[:, :2]
        rmse = float(np.sqrt((difference**2).sum(-1).mean()))
        eyes = float(observations.unit[n]) * scale
        fitted.append(
            FittedView(
                file=photograph.path,
                expression=views.expression[n],
                rotation=views.pose.rotation[n],
                translation=translation[n],
                focal_px=float(focal[n]) * scale,
                center=centre,
                size=(height, width),
                lighting=views.lighting[n],
                landmarks68=in_photo[468:].astype(np.float32),
                landmark_rmse_px=rmse,
                landmark_rmse_percent=100.0 * rmse / eyes,
                energies={name: float(value[n]) for name, value in final.items()},
                outcome="fitted" if finite else "fitted, not converged",
            )
        )
    report = {
        "model": model.name,
        "landmark_rmse_px": float(np.sqrt(np.mean([view.landmark_rmse_px**2 for view in fitted]))),
        "converged": finite,
    }
    return Fit(model, shared.identity, shared.albedo, tuple(fitted), report)
