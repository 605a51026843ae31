"""Compiles the programs of a fit, or loads them from the cache, while the photographs are being read."""

from __future__ import annotations

import threading

import jax
import numpy as np

from facefit.fit.observation import CROP_UNITS, Observation, sharing
from facefit.fit.settings import Settings
from facefit.fit.stages import run_stage
from facefit.fit.start import start
from facefit.fit.surface import fitting_surface
from facefit.model import FaceModel

_rehearsed: set = set()  # of this process, as its compiled programs are


class Rehearsal:
    """A fit of an empty photograph in a second thread; its result is thrown away, its programs stay.

    `finish` waits for it. `cancel` lets it end after the program it is at, and is safe to call at any time.
    """

    def __init__(self, model: FaceModel, settings: Settings, several: bool):
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(model))
        key = (shapes, settings.crop_px, settings.pixels, several)
        self._model, self._settings, self._several = model, settings, several
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="facefit rehearsal")
        if key not in _rehearsed:
            _rehearsed.add(key)
            self._thread.start()

    def _run(self) -> None:
        settings = self._settings
        fitting = fitting_surface(self._model)
        observations = sharing([_empty(fitting, settings)] * (2 if self._several else 1))
        shared, views = start(fitting, observations, settings)
        stages = [(True, False), (True, True)] if self._several else [(True, False)]
        for photometric, together in stages if settings.photometric_steps else [(False, False)]:
            if not self._cancelled.is_set():
                run_stage(fitting, observations, shared, views, settings, photometric, 1, together)

    def finish(self) -> None:
        """Waits until every program is there."""
        if self._thread.is_alive():
            self._thread.join()

    def cancel(self) -> None:
        """The programs are not needed any more."""
        self._cancelled.set()


def _empty(fitting, settings: Settings) -> Observation:
    """The mean face's landmarks in a grey picture."""
    side = settings.crop_px
    unit = side / CROP_UNITS
    points = np.asarray(fitting.landmarks.mean, np.float32) * np.float32([1, -1, -1]) * (unit / 90.0)
    points[:, :2] += side / 2
    return Observation(
        image=np.full((side, side, 3), 0.2, np.float32),
        grey=np.asarray(False),
        weight=np.ones((side, side), np.float32),
        photo_px=np.float32(1),
        principal=np.float32([side / 2, side / 2]),
        unit=np.float32(unit),
        points468=points[:468],
        weight468=np.float32(1),
        points68=points[468:, :2],
        weight68=np.float32(1),
        log_focal=np.float32(np.log(4 * side)),
        log_focal_sigma=np.float32(1),
        share=np.float32(1),
        focal_group=np.int32(0),
    )
