"""Derivatives of residuals whose rows each depend on few numbers, laid out as the solver's columns.

Every landmark and every pixel depends on the model-frame positions of one or three points, the pose, the
light. So derivatives are taken with respect to those, row by row, and led on to identity and expression,
which move the points linearly, by one matrix product. The result equals a dense forward sweep over all
parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facefit.fit.observation import Observation
from facefit.fit.solver import Linearization
from facefit.fit.state import Shared, View


def flatten(terms: dict[str, Array]) -> Float[Array, " R"]:
    """All residuals in one vector, terms in alphabetical order."""
    return jnp.concatenate([terms[name].ravel() for name in sorted(terms)])


def rowwise_derivative(
    function: Callable[[Array], Float[Array, "n D"]], x: Float[Array, "n *K"]
) -> Float[Array, "n D P"]:
    """d function[i] / d x[i] for a function whose row i depends on row i of x only: one sweep an entry of a
    row.
    """
    width = x[0].size
    directions = jnp.eye(width, dtype=x.dtype).reshape((width,) + x.shape[1:])

    def sweep(direction):
        return jax.jvp(function, (x,), (jnp.broadcast_to(direction, x.shape),))[1]

    return jnp.moveaxis(jax.vmap(sweep)(directions), 0, -1)


def through(derivative: Float[Array, "n D P"], basis: Float[Array, "n *K C"]) -> Float[Array, "m C"]:
    """Chains derivatives by rows of P numbers with a basis of C components over those numbers."""
    rows, outputs, width = derivative.shape
    return jnp.matmul(derivative, basis.reshape(rows, width, -1)).reshape(rows * outputs, -1)


def columns(derivative) -> Float[Array, "R K"]:
    """A pytree of derivatives (n, D, ...) as a matrix of n D rows."""
    leaves = jax.tree.leaves(derivative)
    rows = leaves[0].shape[0] * leaves[0].shape[1]
    return jnp.concatenate([leaf.reshape(rows, -1) for leaf in leaves], axis=1)


def in_order(
    shared: Shared,
    view: View,
    seen: Observation,
    points=None,
    albedo=None,
    focal=None,
    expression=None,
    pose=None,
    lighting=None,
    drift=None,
    zero=None,
) -> tuple[Float[Array, "R S"], Float[Array, "R W"]]:
    """One term's derivatives by block, as the columns of `ravel_pytree` of the shared parameters and of the
    view's; a block left out is zero. `points` is identity, then expression.
    """
    count = next(block.shape[0] for block in (points, expression, pose, lighting, drift) if block is not None)
    identity = None
    if points is not None:
        identity, expression = jnp.split(points, [shared.identity.size], axis=1)

    def block(value, width):
        return jnp.zeros((count, width)) if value is None else value.reshape(count, width)

    group = jax.nn.one_hot(seen.focal_group, shared.log_focal.shape[0])
    left = [block(identity, shared.identity.size), block(albedo, shared.albedo.size), block(focal, 1) * group]
    right = [block(expression, view.expression.size), block(pose, 6), block(lighting, 27)]
    right += [block(drift, view.drift.size), block(zero, 1)]
    return jnp.concatenate(left, 1), jnp.concatenate(right, 1)


def join(
    terms: dict[str, Array], derivatives: dict[str, tuple[Float[Array, "R S"], Float[Array, "R W"]]]
) -> Linearization:
    """All terms of a view, in the order of `flatten`."""
    order = sorted(derivatives)
    return Linearization(
        residual=flatten(terms),
        shared=jnp.concatenate([derivatives[name][0] for name in order]),
        view=jnp.concatenate([derivatives[name][1] for name in order]),
    )
