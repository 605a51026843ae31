"""Derivatives of residuals whose rows each depend on few numbers, laid out as the solver's columns.

Every landmark and every pixel depends on the model-frame positions of one or three points, the pose, the
light. So derivatives are taken with respect to those and led on to identity and expression, which move the
points linearly, by one matrix product. The result equals a dense forward sweep over all parameters.
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


def sweep(function: Callable, *arguments):
    """A function's value, and its derivatives by each argument: one forward sweep over all of their entries.

    Where row i of the value depends on row i of an array x alone, the sweep over a displacement that all rows
    of x share gives each row's own derivative, in as many directions as one row has entries.
    """
    numbers = tuple(range(len(arguments)))
    by, value = jax.jacfwd(lambda *x: (function(*x),) * 2, argnums=numbers, has_aux=True)(*arguments)
    return value, by


def through(derivative: Float[Array, "n D *K"], basis: Float[Array, "n *K C"]) -> Float[Array, "m C"]:
    """Chains derivatives by rows of numbers with a basis of C components over those numbers."""
    rows, outputs = derivative.shape[:2]
    flat = jnp.matmul(derivative.reshape(rows, outputs, -1), basis.reshape(rows, -1, basis.shape[-1]))
    return flat.reshape(rows * outputs, -1)


def in_order(
    shared: Shared,
    seen: Observation,
    by_view: View,
    by_focal: Array,
    moved: Float[Array, "R C"] | None = None,
    by_albedo: Float[Array, "R A"] | None = None,
) -> tuple[Float[Array, "R S"], Float[Array, "R W"]]:
    """One term's derivatives as the columns of `ravel_pytree` of the shared parameters and of the view's.

    Args:
        by_view: by the view's own parameters where the points stay; every leaf has the term's axes first.
        by_focal: by the photograph's log focal length, of the term's shape.
        moved: by identity, then expression, through the points that they move.
        by_albedo: by the albedo coefficients.
    """
    rows = by_focal.size
    view = jnp.concatenate([leaf.reshape(rows, -1) for leaf in jax.tree.leaves(by_view)], axis=1)
    identity = jnp.zeros((rows, shared.identity.size))
    if moved is not None:
        identity, expression = jnp.split(moved, [shared.identity.size], axis=1)
        view = view.at[:, : expression.shape[1]].add(expression)  # the first of the view's parameters
    if by_albedo is None:
        by_albedo = jnp.zeros((rows, shared.albedo.size))
    group = jax.nn.one_hot(seen.focal_group, shared.log_focal.shape[0])
    return jnp.concatenate([identity, by_albedo, by_focal.reshape(rows, 1) * group], axis=1), view


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
