"""Levenberg-Marquardt for residuals with shared and per-view parameters; it knows residuals, not faces.

The energy is |g(shared)|^2 + sum_n |f(shared, view_n)|^2. Its Gauss-Newton matrix is an arrow: one block for
the shared parameters, one for every view, and a border between. Each view is eliminated by itself (Schur
complement), so the cost grows linearly with their number, and the compiled programs are those of one view,
whatever the number: a step is a loop over the views on the host.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from facefit import cache

Pytree = Any
Energies = dict[str, Float[Array, ""]]  # sums of squared residuals by term
DAMPING = 1e-3  # factor of the diagonal for a first step (Marquardt 1963)


@struct.dataclass
class Solution:
    """Where the solver stands.

    Attributes:
        shared, views: the parameters; one entry of `views` for each view.
        energy: sum of squared residuals there, ().
        damping: factor of the diagonal for the next step, ().
        accepted: how many steps lowered the energy, ().
        finite: whether the energy was finite at every step, (). A step to a place where it is not is never
            taken.
    """

    shared: Pytree
    views: tuple[Pytree, ...]
    energy: Float[Array, ""]
    damping: Float[Array, ""]
    accepted: Int[Array, ""]
    finite: Bool[Array, ""]


def begin(shared: Pytree, views: Sequence[Pytree], damping: float = DAMPING) -> Solution:
    """The solution before the first step."""
    return Solution(
        shared,
        tuple(views),
        energy=jnp.asarray(jnp.inf, jnp.float32),
        damping=jnp.asarray(damping, jnp.float32),
        accepted=jnp.asarray(0, jnp.int32),
        finite=jnp.asarray(True),
    )


@struct.dataclass
class Linearization:
    """Residuals of one view and their derivatives, columns in the order in which `ravel_pytree` lays
    parameters out.

    Attributes:
        residual: (R,).
        shared: derivative with respect to the shared parameters, (R, S).
        view: derivative with respect to the view's parameters, (R, W).
    """

    residual: Float[Array, " R"]
    shared: Float[Array, "R S"]
    view: Float[Array, "R W"]


@struct.dataclass
class Equations:
    """Normal equations of residuals, J'J and J'r; P = S + W where they are of a view, shared parameters
    first, and S where they are of the shared parameters alone. Those of two sets of residuals add up.
    """

    hessian: Float[Array, "P P"]
    gradient: Float[Array, " P"]


def equations(line: Linearization) -> Equations:
    """The normal equations of one view's residuals."""
    jacobian = jnp.concatenate([line.shared, line.view], axis=1)
    return Equations(jacobian.T @ jacobian, jacobian.T @ line.residual)


def prior_equations(
    residuals: Callable[[Pytree], Float[Array, " Q"]], shared: Pytree
) -> tuple[Equations, Float[Array, ""]]:
    """The normal equations and the energy of residuals of the shared parameters alone."""
    flat, unravel = ravel_pytree(shared)
    residual = residuals(shared)
    jacobian = jax.jacfwd(lambda x: residuals(unravel(x)))(flat)
    return Equations(jacobian.T @ jacobian, jacobian.T @ residual), jnp.sum(residual**2)


def add(first: Pytree, second: Pytree) -> Pytree:
    """Leaf by leaf."""
    return jax.tree.map(operator.add, first, second)


def levenberg_marquardt_step(
    solution: Solution,
    prepare: Callable[[Pytree, Sequence[Pytree]], Sequence[Pytree]],
    linearize: Callable[[Pytree, Pytree, Pytree], tuple[Equations, Energies, Pytree]],
    energies: Callable[[Pytree, Pytree, Pytree], Energies],
    prior: Callable[[Pytree], tuple[Equations, Float[Array, ""]]],
    prior_energy: Callable[[Pytree], Float[Array, ""]],
) -> Solution:
    """One damped Gauss-Newton step on the energy above, taken if it lowers the energy. Pure.

    Args:
        solution: where to start from.
        prepare: (shared, views) -> data of each view.
        linearize: (shared, view, data) -> normal equations, energies by term, and whatever is held fixed
            during the step (visibility, correspondences). Left to the caller, who knows which parameters act
            through what; a dense forward sweep over every parameter can cost fifty times more.
        energies: (shared, view, fixed) -> energies by term, for a trial.
        prior: see `prior_equations`. prior_energy: the energy alone, for a trial.
    """
    data = prepare(solution.shared, solution.views)
    pairs = zip(solution.views, data, strict=True)
    lines = [linearize(solution.shared, view, datum) for view, datum in pairs]
    base, prior_before = prior(solution.shared)
    before = _total(prior_before, [found for _, found, _ in lines])
    eliminated = [_eliminate(found, solution.shared, solution.damping) for found, _, _ in lines]
    reduced = functools.reduce(add, (part for part, _ in eliminated))
    shared, moved = _move_shared(solution.shared, base, reduced, solution.damping)
    views = [_move_view(view, solved, moved) for view, (_, solved) in zip(solution.views, eliminated)]
    trial = [energies(shared, view, fixed) for view, (_, _, fixed) in zip(views, lines)]
    after = _total(prior_energy(shared), trial)
    better, damping, energy = _judge(before, after, solution.damping)
    return Solution(
        shared=_choose(better, shared, solution.shared),
        views=tuple(_choose(better, new, old) for new, old in zip(views, solution.views)),
        energy=energy,
        damping=damping,
        accepted=solution.accepted + better,
        finite=solution.finite & jnp.isfinite(before),
    )


def _total(prior: Float[Array, ""], views: Sequence[Energies]) -> Float[Array, ""]:
    return functools.reduce(operator.add, (value for found in views for value in found.values()), prior)


@cache.remembered
def _judge(before, after, damping):
    """Whether a trial is taken, the next damping, and the energy then."""
    better = jnp.isfinite(after) & (after < before)
    damping = jnp.clip(jnp.where(better, damping * 0.3, damping * 8.0), 1e-6, 1e6)
    return better, damping, jnp.where(better, after, before)


@cache.remembered
def _choose(better, new, old):
    return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)


@struct.dataclass
class _Reduced:
    """What a view leaves of the equations of the shared parameters: its own block, what eliminating it takes
    away from that, and the gradient.
    """

    block: Float[Array, "S S"]
    taken: Float[Array, "S S"]
    gradient: Float[Array, " S"]


@cache.remembered
def _eliminate(
    found: Equations, shared: Pytree, damping: Float[Array, ""]
) -> tuple[_Reduced, Float[Array, "W T"]]:
    """Eliminates a view; returns, besides, the view's parameters as an affine function of the shared ones: S
    columns and a constant one.

    Every block is normalised to a unit diagonal (which makes the damping Marquardt's): focal length in
    logarithms and positions in pixels differ by many orders of magnitude, and single precision has seven
    digits.
    """
    size = ravel_pytree(shared)[0].shape[0]
    h_sv, h_vv, g_v = found.hessian[:size, size:], found.hessian[size:, size:], found.gradient[size:]
    scale = 1.0 / jnp.sqrt(jnp.diagonal(h_vv) + 1e-8)
    scaled = h_vv * scale[:, None] * scale + damping * jnp.eye(scale.shape[0])
    right = scale[:, None] * jnp.concatenate([h_sv.T, g_v[:, None]], axis=1)
    solved = scale[:, None] * jax.scipy.linalg.solve(scaled, right, assume_a="pos")
    taken = h_sv @ solved
    reduced = _Reduced(found.hessian[:size, :size], taken[:, :-1], found.gradient[:size] - taken[:, -1])
    return reduced, solved


@cache.remembered
def _move_shared(shared: Pytree, base: Equations, reduced: _Reduced, damping: Float[Array, ""]):
    """The shared parameters after the step, and the step itself, (S,)."""
    flat, unravel = ravel_pytree(shared)
    block = base.hessian + reduced.block
    scale = 1.0 / jnp.sqrt(jnp.diagonal(block) + 1e-8)
    scaled = (block - reduced.taken) * scale[:, None] * scale + damping * jnp.eye(scale.shape[0])
    step = scale * jax.scipy.linalg.solve(scaled, scale * (base.gradient + reduced.gradient), assume_a="pos")
    return unravel(flat - step), step


@cache.remembered
def _move_view(view: Pytree, solved: Float[Array, "W T"], step: Float[Array, " S"]) -> Pytree:
    """A view's parameters after the step."""
    flat, unravel = ravel_pytree(view)
    return unravel(flat - (solved[:, -1] - solved[:, :-1] @ step))
