"""Levenberg-Marquardt for residuals with shared and per-view parameters; it knows residuals, not faces.

The energy is |g(shared)|^2 + sum_n |f(shared, view_n, data_n)|^2. Its Gauss-Newton matrix is an arrow: one
block for the shared parameters, one for every view, and a border between. The views are eliminated first
(Schur complement), so the cost grows linearly with their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

Pytree = Any
# Views handled together: enough to keep the processors busy, few enough that any number of views fits in
# memory.
VIEWS_AT_ONCE = 4


@struct.dataclass
class Solution:
    """Where the solver stands.

    Attributes:
        shared, views: the parameters; the leaves of `views` have a leading axis N.
        energy: sum of squared residuals there, ().
        damping: factor of the diagonal for the next step, ().
        accepted: how many steps lowered the energy, ().
        finite: whether the energy was finite at every step, (). A step to a place where it is not is never
            taken.
    """

    shared: Pytree
    views: Pytree
    energy: Float[Array, ""]
    damping: Float[Array, ""]
    accepted: Int[Array, ""]
    finite: Bool[Array, ""]


def begin(shared: Pytree, views: Pytree, damping: float = 1e-3) -> Solution:
    """The solution before the first step."""
    return Solution(
        shared,
        views,
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


def levenberg_marquardt_step(
    solution: Solution,
    view_residuals: Callable[[Pytree, Pytree, Pytree], Float[Array, " R"]],
    linearize: Callable[[Pytree, Pytree, Pytree], Linearization],
    shared_residuals: Callable[[Pytree], Float[Array, " Q"]],
    prepare: Callable[[Pytree, Pytree, Pytree], Pytree],
    data: Pytree,
) -> Solution:
    """One damped Gauss-Newton step on the energy above, taken if it lowers the energy. Pure.

    Args:
        solution: where to start from.
        view_residuals: f(shared, view, prepared) -> (R,), for one view.
        linearize: the same with its derivatives. Left to the caller, who knows which parameters act through
            what; a dense forward sweep over every parameter can cost fifty times more.
        shared_residuals: g(shared) -> (Q,).
        prepare: (shared, view, data) -> prepared, for one view: what is held fixed during the step
            (visibility, correspondences).
        data: pytree with leading axis N.
    """
    s, unravel_shared = ravel_pytree(solution.shared)
    _, unravel_view = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], solution.views))
    size = s.shape[0]

    def each_view(function, *arguments):
        return jax.lax.map(lambda packed: function(*packed), arguments, batch_size=VIEWS_AT_ONCE)

    def normal_equations(view, datum):
        prepared = prepare(solution.shared, view, datum)
        line = linearize(solution.shared, view, prepared)
        jacobian = jnp.concatenate([line.shared, line.view], axis=1)
        return jacobian.T @ jacobian, jacobian.T @ line.residual, jnp.sum(line.residual**2), prepared

    hessians, gradients, energies, prepared = each_view(normal_equations, solution.views, data)
    residual = shared_residuals(solution.shared)
    jacobian = jax.jacfwd(lambda x: shared_residuals(unravel_shared(x)))(s)
    before = jnp.sum(residual**2) + energies.sum()
    h_ss = jacobian.T @ jacobian + hessians[:, :size, :size].sum(0)
    g_s = jacobian.T @ residual + gradients[:, :size].sum(0)
    delta_s, delta_w = _solve_arrow(
        h_ss, hessians[:, :size, size:], hessians[:, size:, size:], g_s, gradients[:, size:], solution.damping
    )

    new_shared = unravel_shared(s - delta_s)
    new_views = jax.vmap(lambda view, delta: unravel_view(ravel_pytree(view)[0] - delta))(
        solution.views, delta_w
    )
    per_view = each_view(
        lambda view, fixed: jnp.sum(view_residuals(new_shared, view, fixed) ** 2), new_views, prepared
    )
    after = jnp.sum(shared_residuals(new_shared) ** 2) + jnp.sum(per_view)
    better = jnp.isfinite(after) & (after < before)

    def choose(new, old):
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

    return Solution(
        shared=choose(new_shared, solution.shared),
        views=choose(new_views, solution.views),
        energy=jnp.where(better, after, before),
        damping=jnp.clip(jnp.where(better, solution.damping * 0.3, solution.damping * 8.0), 1e-6, 1e6),
        accepted=solution.accepted + better,
        finite=solution.finite & jnp.isfinite(before),
    )


def _solve_arrow(
    h_ss: Float[Array, "S S"],
    h_sv: Float[Array, "N S W"],
    h_vv: Float[Array, "N W W"],
    g_s: Float[Array, " S"],
    g_v: Float[Array, "N W"],
    damping: Float[Array, ""],
) -> tuple[Float[Array, " S"], Float[Array, "N W"]]:
    """Solves the damped normal equations by eliminating the views.

    The matrix is normalised to a unit diagonal first (which makes the damping Marquardt's): focal length in
    logarithms and positions in pixels differ by many orders of magnitude, and single precision has seven
    digits.
    """
    scale_s = 1.0 / jnp.sqrt(jnp.diagonal(h_ss) + 1e-8)
    scale_v = 1.0 / jnp.sqrt(jax.vmap(jnp.diagonal)(h_vv) + 1e-8)
    h_ss = h_ss * scale_s[:, None] * scale_s + damping * jnp.eye(h_ss.shape[0])
    h_vv = h_vv * scale_v[:, :, None] * scale_v[:, None, :] + damping * jnp.eye(h_vv.shape[-1])
    h_sv = h_sv * scale_s[:, None] * scale_v[:, None, :]
    right = jnp.concatenate([jnp.swapaxes(h_sv, 1, 2), (g_v * scale_v)[..., None]], axis=-1)
    solved = jax.vmap(lambda h, r: jax.scipy.linalg.solve(h, r, assume_a="pos"))(h_vv, right)
    reduced = h_ss - jnp.einsum("nsw,nwt->st", h_sv, solved[..., :-1])
    reduced_gradient = g_s * scale_s - jnp.einsum("nsw,nw->s", h_sv, solved[..., -1])
    scaled_s = jax.scipy.linalg.solve(reduced, reduced_gradient, assume_a="pos")
    delta_w = (solved[..., -1] - jnp.einsum("nwt,t->nw", solved[..., :-1], scaled_s)) * scale_v
    return scaled_s * scale_s, delta_w
