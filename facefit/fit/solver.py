"""Levenberg-Marquardt for residuals with shared and per-view parameters; it knows residuals, not faces.

The energy is |g(shared)|^2 + sum_n |f(shared, view_n, data_n)|^2. Its Gauss-Newton matrix is an arrow: one block for
the shared parameters, one for every view, and a border between. The views are eliminated first (Schur complement), so
the cost grows linearly with their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

Pytree = Any


@struct.dataclass
class Solution:
    """Where the solver stopped.

    Attributes:
        shared, views: the parameters.
        energy: sum of squared residuals there, ().
        damping: the last damping factor, ().
        accepted: how many of the steps lowered the energy, ().
        finite: whether the energy was finite at every step, (). A step to a place where it is not is never taken.
    """

    shared: Pytree
    views: Pytree
    energy: Float[Array, ""]
    damping: Float[Array, ""]
    accepted: Float[Array, ""]
    finite: Float[Array, ""]


@struct.dataclass
class Linearization:
    """Residuals of one view and their derivatives, columns in the order in which `ravel_pytree` lays parameters out.

    Attributes:
        residual: (R,).
        shared: derivative with respect to the shared parameters, (R, S).
        view: derivative with respect to the view's parameters, (R, W).
    """

    residual: Float[Array, " R"]
    shared: Float[Array, "R S"]
    view: Float[Array, "R W"]


def levenberg_marquardt(
    view_residuals: Callable[[Pytree, Pytree, Pytree], Float[Array, " R"]],
    linearize: Callable[[Pytree, Pytree, Pytree], Linearization],
    shared_residuals: Callable[[Pytree], Float[Array, " Q"]],
    shared: Pytree,
    views: Pytree,
    prepare: Callable[[Pytree, Pytree, Pytree], Pytree],
    data: Pytree,
    steps: int,
    damping: float = 1e-3,
) -> Solution:
    """Minimises the energy above with a fixed number of damped Gauss-Newton steps. Pure; jit it with `steps` static.

    Args:
        view_residuals: f(shared, view, prepared) -> (R,), for one view.
        linearize: the same with its derivatives. Left to the caller, who knows which parameters act through what;
            a dense forward sweep over every parameter can cost fifty times more.
        shared_residuals: g(shared) -> (Q,).
        shared: pytree of the shared parameters.
        views: pytree of the view parameters, leading axis N.
        prepare: (shared, view, data) -> prepared, called before every step for every view: what is held fixed during
            a step (visibility, correspondences).
        data: pytree with leading axis N.
        steps: number of steps, static.
        damping: first factor of the diagonal that is added to the Gauss-Newton matrix.
    """
    start_shared, unravel_shared = ravel_pytree(shared)
    _, unravel_view = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], views))
    start_views = jax.vmap(lambda view: ravel_pytree(view)[0])(views)
    size = start_shared.shape[0]

    def energy(s, w, prepared):
        shared = unravel_shared(s)
        per_view = jax.lax.map(lambda a: jnp.sum(view_residuals(shared, unravel_view(a[0]), a[1]) ** 2), (w, prepared))
        return jnp.sum(shared_residuals(shared) ** 2) + jnp.sum(per_view)

    def normal_equations(s, w, prepared):
        shared = unravel_shared(s)

        def one(a):
            w_n, prepared_n = a
            line = linearize(shared, unravel_view(w_n), prepared_n)
            residual, jacobian = line.residual, jnp.concatenate([line.shared, line.view], axis=1)
            return jacobian.T @ jacobian, jacobian.T @ residual, jnp.sum(residual**2)

        hessians, gradients, energies = jax.lax.map(one, (w, prepared))
        residual = shared_residuals(shared)
        jacobian = jax.jacfwd(lambda x: shared_residuals(unravel_shared(x)))(s)
        hessian_ss = jacobian.T @ jacobian + hessians[:, :size, :size].sum(0)
        gradient_s = jacobian.T @ residual + gradients[:, :size].sum(0)
        total = jnp.sum(residual**2) + energies.sum()
        return hessian_ss, gradient_s, hessians[:, :size, size:], hessians[:, size:, size:], gradients[:, size:], total

    def step(state, _):
        s, w, factor, accepted, finite, _ = state
        prepared = jax.lax.map(lambda a: prepare(unravel_shared(s), unravel_view(a[0]), a[1]), (w, data))
        h_ss, g_s, h_sv, h_vv, g_v, before = normal_equations(s, w, prepared)
        # Marquardt's scaling, with the matrix normalised to a unit diagonal first: focal length in logarithms and
        # positions in pixels differ by many orders of magnitude, and single precision has seven digits.
        scale_s = 1.0 / jnp.sqrt(jnp.diagonal(h_ss) + 1e-8)
        scale_v = 1.0 / jnp.sqrt(jax.vmap(jnp.diagonal)(h_vv) + 1e-8)
        h_ss = h_ss * scale_s[:, None] * scale_s + factor * jnp.eye(size)
        h_vv = h_vv * scale_v[:, :, None] * scale_v[:, None, :] + factor * jnp.eye(h_vv.shape[-1])
        h_sv = h_sv * scale_s[:, None] * scale_v[:, None, :]
        right = jnp.concatenate([jnp.swapaxes(h_sv, 1, 2), (g_v * scale_v)[..., None]], axis=-1)
        solved = jax.lax.map(lambda a: jax.scipy.linalg.solve(a[0], a[1], assume_a="pos"), (h_vv, right))
        reduced = h_ss - jnp.einsum("nsw,nwt->st", h_sv, solved[..., :-1])
        reduced_gradient = g_s * scale_s - jnp.einsum("nsw,nw->s", h_sv, solved[..., -1])
        scaled_s = jax.scipy.linalg.solve(reduced, reduced_gradient, assume_a="pos")
        delta_w = (solved[..., -1] - jnp.einsum("nws,s->nw", solved[..., :-1], scaled_s)) * scale_v
        delta_s = scaled_s * scale_s
        new_s, new_w = s - delta_s, w - delta_w
        after = energy(new_s, new_w, prepared)
        sound = jnp.isfinite(after) & jnp.all(jnp.isfinite(new_s)) & jnp.all(jnp.isfinite(new_w))
        better = sound & (after < before)
        s, w = jnp.where(better, new_s, s), jnp.where(better, new_w, w)
        factor = jnp.clip(jnp.where(better, factor * 0.3, factor * 8.0), 1e-6, 1e6)
        return (s, w, factor, accepted + better, finite & jnp.isfinite(before), jnp.where(better, after, before)), None

    first = (
        start_shared,
        start_views,
        jnp.asarray(damping, jnp.float32),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(True),
        jnp.asarray(jnp.inf, jnp.float32),
    )
    (s, w, factor, accepted, finite, total), _ = jax.lax.scan(step, first, None, length=steps)
    return Solution(unravel_shared(s), jax.vmap(unravel_view)(w), total, factor, accepted, finite)
