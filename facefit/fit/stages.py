"""The stages of a fit: landmarks alone, then landmarks and colours, then the photographs of one person
compared with each other. Every program is of one photograph, compiled once for any number of photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from facefit import cache
from facefit.energy.priors import pigment_residuals
from facefit.fit.landmark_terms import correspond, landmark_terms, linearize_landmark_terms
from facefit.fit.observation import Observation
from facefit.fit.paint import paint_from_others
from facefit.fit.pixel_terms import choose_pixels, linearize_pixel_terms, pixel_terms
from facefit.fit.placement import draw, place
from facefit.fit.settings import Settings
from facefit.fit.solver import (
    DAMPING,
    Energies,
    Equations,
    Solution,
    add,
    begin,
    equations,
    levenberg_marquardt_step,
    prior_equations,
)
from facefit.fit.state import Shared, View
from facefit.fit.surface import FittingSurface


def _energies(terms: dict[str, Array]) -> Energies:
    return {name: jnp.sum(term**2) for name, term in terms.items()}


@cache.remembered
def _linearize_landmarks(fitting: FittingSurface, settings: Settings, shared, view, seen, placed):
    fixed = correspond(fitting, settings, seen, placed)
    line, terms = linearize_landmark_terms(fitting, settings, shared, view, seen, fixed)
    return equations(line), _energies(terms), fixed


@cache.remembered
def _landmark_energies(fitting: FittingSurface, settings: Settings, shared, view, seen, fixed) -> Energies:
    return _energies(landmark_terms(fitting, settings, shared, view, seen, fixed))


@cache.remembered
def _linearize_pixels(fitting: FittingSurface, settings: Settings, shared, view, seen, placed, drawn, paint):
    fixed = choose_pixels(fitting, settings, seen, placed, drawn, paint)
    line, terms = linearize_pixel_terms(settings, shared, view, seen, fixed)
    return equations(line), _energies(terms), fixed


@cache.remembered
def _pixel_energies(settings: Settings, shared, view, seen, fixed) -> Energies:
    return _energies(pixel_terms(settings, shared, view, seen, fixed))


def _prior_residuals(fitting: FittingSurface, settings: Settings) -> Callable[[Shared], Float[Array, " Q"]]:
    # A hundred vertices of the face stand for all.
    some = fitting.outline[:: max(len(fitting.outline) // 100, 1)]
    mean, basis = fitting.surface.albedo_mean[some], fitting.albedo_basis[some]

    def residuals(shared: Shared) -> Float[Array, " Q"]:
        pigment = pigment_residuals(mean + basis @ shared.albedo, settings.negative_sigma)
        # Focal lengths get their priors from the views; a tiny pull keeps unused groups determined.
        return jnp.concatenate(
            [shared.identity / settings.identity_sigma, shared.albedo, pigment, 1e-3 * shared.log_focal]
        )

    return residuals


@cache.remembered
def _prior(fitting: FittingSurface, settings: Settings, shared: Shared, held: Bool[Array, ""]):
    found, energy = prior_equations(_prior_residuals(fitting, settings), shared)
    # Held parameters are as if known: what a step then moves them by is nothing beside their size.
    stiff = jnp.where(held, 1e12, 0.0) * jnp.eye(len(found.gradient))
    return Equations(found.hessian + stiff, found.gradient), energy


@cache.remembered
def _prior_energy(fitting: FittingSurface, settings: Settings, shared: Shared) -> Float[Array, ""]:
    return jnp.sum(_prior_residuals(fitting, settings)(shared) ** 2)


class Stage:
    """The functions that the solver asks for, over the photographs of one subject.

    Args:
        photometric: compare colours.
        together: compare every photograph with what the others show of the skin, instead of with the model's
            albedo alone (see `facefit.fit.paint`).
        held: leave the shared parameters as they are.
    """

    def __init__(
        self,
        fitting: FittingSurface,
        observations: Sequence[Observation],
        settings: Settings,
        photometric: bool,
        together: bool = False,
        held: bool = False,
    ):
        self.fitting, self.observations, self.settings = fitting, observations, settings
        self.photometric, self.together, self.held = photometric, together, np.bool_(held)
        self.none = jnp.zeros_like(fitting.surface.mean)

    def prepare(self, shared: Shared, views: Sequence[View]):
        placed = [place(self.fitting, shared, view, seen) for view, seen in zip(views, self.observations)]
        if not self.photometric:
            return [(seen, here, None, None) for seen, here in zip(self.observations, placed)]
        drawn = [draw(self.fitting, self.settings, here) for here in placed]
        paint = [self.none] * len(placed)
        if self.together:
            paint = paint_from_others(self.fitting, shared, views, self.observations, placed, drawn)
        return list(zip(self.observations, placed, drawn, paint, strict=True))

    def linearize(self, shared: Shared, view: View, data):
        seen, placed, drawn, paint = data
        found, energies, points = _linearize_landmarks(
            self.fitting, self.settings, shared, view, seen, placed
        )
        if not self.photometric:
            return found, energies, (seen, points, None)
        colors, more, pixels = _linearize_pixels(
            self.fitting, self.settings, shared, view, seen, placed, drawn, paint
        )
        return add(found, colors), energies | more, (seen, points, pixels)

    def energies(self, shared: Shared, view: View, fixed) -> Energies:
        seen, points, pixels = fixed
        found = _landmark_energies(self.fitting, self.settings, shared, view, seen, points)
        if pixels is not None:
            found |= _pixel_energies(self.settings, shared, view, seen, pixels)
        return found

    def prior(self, shared: Shared):
        return _prior(self.fitting, self.settings, shared, self.held)

    def prior_energy(self, shared: Shared) -> Float[Array, ""]:
        return _prior_energy(self.fitting, self.settings, shared)


def run_stage(
    fitting: FittingSurface,
    observations: Sequence[Observation],
    shared: Shared,
    views: Sequence[View],
    settings: Settings,
    photometric: bool,
    steps: int,
    together: bool = False,
    held: bool = False,
    damping: float = DAMPING,
) -> Solution:
    """Runs one stage from the given parameters; see `Stage` for `photometric`, `together` and `held`."""
    stage = Stage(fitting, observations, settings, photometric, together, held)
    solution = begin(shared, views, damping)
    for _ in range(steps):
        solution = levenberg_marquardt_step(
            solution, stage.prepare, stage.linearize, stage.energies, stage.prior, stage.prior_energy
        )
    return solution


def energies(
    fitting: FittingSurface,
    observations: Sequence[Observation],
    shared: Shared,
    views: Sequence[View],
    settings: Settings,
    photometric: bool,
) -> list[Energies]:
    """Energy of every term in every view, colours compared with the model's own albedo.

    Found by linearizing, which costs a solver step but no program of its own to compile.
    """
    stage = Stage(fitting, observations, settings, photometric)
    data = stage.prepare(shared, views)
    return [stage.linearize(shared, view, datum)[1] for view, datum in zip(views, data, strict=True)]
