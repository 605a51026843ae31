"""What a fit returns: the subject's parameters, one record per fitted photograph, and a report."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from jaxtyping import Float

from facefit.model import FaceModel


@dataclasses.dataclass(frozen=True)
class FittedView:
    """One fitted photograph, on the host.

    Attributes:
        file: path as the caller gave it.
        expression: coefficients, (E,).
        rotation: axis-angle, camera frame, (3,); zero looks at the camera (see
            `facefit.render.camera.to_camera`).
        translation: of the model's origin in the camera frame, millimetres, (3,).
        focal_px: focal length, photograph pixels.
        center: principal point, photograph pixels, first pixel's centre at (0.5, 0.5), (2,).
        size: (H, W) of the upright photograph.
        lighting: spherical harmonics, linear RGB, camera frame, (9, 3).
        landmarks68: projected iBUG points, photograph pixels, first pixel's centre at (0.5, 0.5), (68, 2).
        landmark_rmse_px: between the projected and the detected points.
        landmark_rmse_percent: the same as a percentage of the distance between the outer eye corners.
        energies: final value of every energy term.
        outcome: "fitted", or "fitted, not converged".
    """

    file: str
    expression: Float[np.ndarray, " E"]
    rotation: Float[np.ndarray, "3"]
    translation: Float[np.ndarray, "3"]
    focal_px: float
    center: Float[np.ndarray, "2"]
    size: tuple[int, int]
    lighting: Float[np.ndarray, "9 3"]
    landmarks68: Float[np.ndarray, "68 2"]
    landmark_rmse_px: float
    landmark_rmse_percent: float
    energies: dict[str, float]
    outcome: str = "fitted"


@dataclasses.dataclass(frozen=True)
class Fit:
    """One person's face, found from one or several photographs.

    Attributes:
        model: the model that was fitted.
        identity, albedo: coefficients shared by all photographs, (I,), (A,).
        views: one record per fitted photograph, in the caller's order.
        report: plain data for `summary.json`: "photos" (every photograph of the call, also those that
            failed), "seconds" per stage, "landmark_rmse_px" over all views, "preset", "model".
    """

    model: FaceModel
    identity: Float[np.ndarray, " I"]
    albedo: Float[np.ndarray, " A"]
    views: tuple[FittedView, ...]
    report: dict

    def save(self, folder: str | os.PathLike, pixels: dict[str, np.ndarray] | None = None) -> None:
        """Writes everything the command line writes (see `facefit.fit.storage.save`)."""
        from facefit.fit.storage import save

        save(self, folder, pixels)

    @staticmethod
    def load(folder: str | os.PathLike, model: FaceModel | None = None) -> Fit:
        """Reads `fit.npz` of a folder written by `save` (see `facefit.fit.storage.load`)."""
        from facefit.fit.storage import load

        return load(folder, model)
