"""Albedo and light of photographs whose geometry is known: Gauss-Newton on the photometric energy and the
priors of a fit, with the posterior's covariance, and the errors on pixels that were left out.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.open_face.observed_colors import Seen, SeenPixels
from facefit.color import linear_to_srgb_unclipped
from facefit.energy.priors import exposure_residual, lighting_residuals, pigment_residuals, shadow_residuals
from facefit.fit.settings import Settings
from facefit.render import sh_basis

SETTINGS = Settings()
_SCALES = np.float32([1.0, 0.5, 0.2, 0.0])  # of a step; the best is taken
_DAMPING = 1e-3


class Colors(NamedTuple):
    """What is solved for: albedo coefficients (A,) and lighting (9, 3) of a photograph."""

    albedo: Float[Array, " A"]
    lighting: Float[Array, "9 3"]


class Albedo(NamedTuple):
    """A linear model of the albedo at S places, linear RGB: mean (S, 3), basis (A, S, 3); a few rows
    (P, 3), (A, P, 3) on which the albedo must be plausible; and the precision of the coefficients' prior,
    (A,): one where it is N(0, 1)."""

    mean: Float[Array, "S 3"]
    basis: Float[Array, "A S 3"]
    some_mean: Float[Array, "P 3"]
    some_basis: Float[Array, "A P 3"]
    precision: Float[Array, " A"]


class Evidence(NamedTuple):
    """Pixels as the energy counts them: sRGB (S, 3); independent measurements each stands for (S,); the nine
    functions of the light (S, 9)."""

    color: Float[Array, "S 3"]
    weight: Float[Array, " S"]
    harmonics: Float[Array, "S 9"]


def evidence(seen: Seen, count: float = SETTINGS.photometric_count) -> Evidence:
    """`count` independent measurements shared out to the places that are seen."""
    total = jnp.maximum(jnp.sum(seen.weight), 1.0)
    return Evidence(seen.color, seen.weight * (count / total), sh_basis(seen.normal))


def misses(model: Albedo, at: Colors, what: Evidence) -> tuple[Array, Array, Array, Array]:
    """Differences from the photograph in standard deviations (S, 3); their derivatives by albedo and by
    irradiance (S, 3) each; and the robust penalty's weight, with the measurement's (S,).

    The penalty is that of `facefit.energy.robust.geman_mcclure`, whose gradient this weight reproduces.
    """
    sigma, outlier = SETTINGS.photometric_sigma, SETTINGS.photometric_outlier
    albedo = model.mean + jnp.tensordot(at.albedo, model.basis, 1)
    irradiance = what.harmonics @ at.lighting
    rendered, slope = jax.jvp(linear_to_srgb_unclipped, (albedo * irradiance,), (jnp.ones_like(albedo),))
    miss = (rendered - what.color) / sigma
    robust = 1.0 / (1.0 + jnp.sum(miss**2, -1) / outlier**2) ** 2
    return miss, slope * irradiance / sigma, slope * albedo / sigma, robust * what.weight


def photometric_energy(model: Albedo, at: Colors, what: Evidence) -> Float[Array, ""]:
    """Sum of the robust penalties, as the fit counts them."""
    miss = misses(model, at, what)[0]
    squared = jnp.sum(miss**2, -1)
    return jnp.sum(what.weight * squared / (1.0 + squared / SETTINGS.photometric_outlier**2))


def prior_rows(model: Albedo, at: Colors) -> Float[Array, " P"]:
    """Residuals of the priors of a fit that concern colours."""
    s = SETTINGS
    pigment = pigment_residuals(
        model.some_mean + jnp.tensordot(at.albedo, model.some_basis, 1), s.negative_sigma
    )
    light = lighting_residuals(at.lighting, s.lighting_sigma, s.lighting_color_sigma)
    shadow = shadow_residuals(at.lighting, s.negative_sigma)
    return jnp.concatenate(
        [
            at.albedo * jnp.sqrt(model.precision),
            pigment,
            light,
            shadow,
            exposure_residual(at.lighting, s.exposure_log_sigma),
        ]
    )


def _flat(at: Colors) -> Float[Array, " P"]:
    return jnp.concatenate([at.albedo, at.lighting.ravel()])


def _unflat(values: Float[Array, " P"]) -> Colors:
    return Colors(values[:-27], values[-27:].reshape(9, 3))


def _equations(model: Albedo, at: Colors, what: Evidence) -> tuple[Array, Array]:
    """Hessian (P, P) and gradient (P,) of half the energy; albedo before lighting (rows of the nine)."""
    miss, by_albedo, by_light, weight = misses(model, at, what)
    hessian = jnp.zeros((len(at.albedo) + 27,) * 2)
    gradient = jnp.zeros(len(hessian))
    for channel in range(3):
        albedo = model.basis[..., channel] * by_albedo[:, channel]
        light = what.harmonics.T * by_light[:, channel]
        rows = jnp.concatenate([albedo, light])
        place = np.concatenate([np.arange(len(at.albedo)), len(at.albedo) + channel + 3 * np.arange(9)])
        hessian = hessian.at[place[:, None], place].add((rows * weight) @ rows.T)
        gradient = gradient.at[place].add(rows @ (weight * miss[:, channel]))
    flat = _flat(at)
    prior = prior_rows(model, at)
    slopes = jax.jacfwd(lambda values: prior_rows(model, _unflat(values)))(flat)
    return hessian + slopes.T @ slopes, gradient + slopes.T @ prior


def _energy(model: Albedo, at: Colors, what: Evidence) -> Float[Array, ""]:
    return photometric_energy(model, at, what) + jnp.sum(prior_rows(model, at) ** 2)


def solve(model: Albedo, start: Colors, what: Evidence, steps: int) -> tuple[Colors, Float[Array, "A A"]]:
    """The most probable colours of one photograph, and the covariance of their albedo coefficients."""

    def step(at: Colors, _):
        hessian, gradient = _equations(model, at, what)
        damped = hessian + _DAMPING * jnp.diag(jnp.diag(hessian))
        move = jax.scipy.linalg.solve(damped, gradient, assume_a="pos")
        move = jnp.where(jnp.all(jnp.isfinite(move)), move, 0.0)
        tried = [_unflat(_flat(at) - scale * move) for scale in _SCALES]
        energies = jnp.stack([_energy(model, one, what) for one in tried])
        best = jnp.argmin(jnp.where(jnp.isfinite(energies), energies, jnp.inf))
        return jax.tree.map(lambda *values: jnp.stack(values)[best], *tried), None

    found = jax.lax.scan(step, start, None, length=steps)[0]
    hessian = _equations(model, found, what)[0]
    covariance = jnp.linalg.inv(hessian)[: len(start.albedo), : len(start.albedo)]
    return found, covariance


@functools.partial(jax.jit, static_argnames="steps")
def solve_all(
    model: Albedo,
    added: tuple[Float[Array, "J S 3"], Float[Array, "J P 3"]],
    known: Float[Array, "N J"],
    start: Colors,
    seen: Seen,
    steps: int,
) -> tuple[Colors, Float[Array, "N A A"]]:
    """`solve` for N photographs (leading axes of `start` and `seen`), one after the other: each keeps all
    cores busy.

    Args:
        added: to the means of the model, `known` times, at its places and at the few where it is plausible.
    """

    def one(item):
        begin, here, amount = item
        own = model._replace(
            mean=model.mean + jnp.tensordot(amount, added[0], 1),
            some_mean=model.some_mean + jnp.tensordot(amount, added[1], 1),
        )
        return solve(own, begin, evidence(here), steps)

    return jax.lax.map(one, (start, seen, known))


class HeldOut(NamedTuple):
    """Errors on pixels that were not used to find the colours, one a photograph.

    Attributes:
        squared: mean squared sRGB difference under the pixels' weight, in each of C parts, (N, C).
        robust: mean robust penalty, a pixel's standard deviation `Settings.photometric_sigma`, (N, C).
        found: the colours, of the last half solved.
    """

    squared: Float[Array, "N C"]
    robust: Float[Array, "N C"]
    found: Colors


@functools.partial(jax.jit, static_argnames="steps")
def held_out(
    mean: Float[Array, "V 3"],
    basis: Float[Array, "A V 3"],
    some: Float[Array, " P"],
    counted: Float[Array, "C V"],
    lighting: Float[Array, "N 9 3"],
    pixels: SeenPixels,
    steps: int,
) -> HeldOut:
    """Solves on one half of each photograph's chequerboard and measures on the other, both ways.

    Args:
        some: vertices on which the albedo must be plausible.
        counted: how much a vertex counts in the measure of each part, (C, V); all count in solving.
        lighting: where to start from, with the mean albedo.
    """

    def one(item):
        light, here = item

        def mix(values):
            return jnp.einsum("mk,...mkc->...mc", here.barycentric, values[..., here.corner, :])

        model = Albedo(mix(mean), mix(basis), mean[some], basis[:, some], jnp.ones(len(basis)))
        share = jnp.einsum("mk,cmk->cm", here.barycentric, counted[:, here.corner])
        squares, penalties = [], []
        for half in (0, 1):
            used = here.seen._replace(weight=here.seen.weight * (here.half == half))
            start = Colors(jnp.zeros(len(basis)), light)
            found = solve(model, start, evidence(used), steps)[0]
            left = here.seen.weight * (here.half != half) * share
            left = left / jnp.maximum(jnp.sum(left, -1, keepdims=True), 1e-6)
            what = Evidence(here.seen.color, jnp.ones_like(left[0]), sh_basis(here.seen.normal))
            squared = jnp.sum(misses(model, found, what)[0] ** 2, -1)
            squares.append(left @ squared * SETTINGS.photometric_sigma**2 / 3.0)
            penalties.append(left @ (squared / (1.0 + squared / SETTINGS.photometric_outlier**2)))
        return HeldOut(sum(squares) / 2, sum(penalties) / 2, found)

    return jax.lax.map(one, (lighting, pixels))
