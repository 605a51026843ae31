"""What the other photographs of a person show on the skin that the model's albedo cannot: freckles, brows,
shadows under the eyes.

Compared with it, a photograph tells where the surface is, since the same spot must come out at the same
place in every photograph; a photograph's own colours would explain themselves wherever the surface is, so
they are left out of its own paint.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facefit import cache
from facefit.energy.landmarks import facing
from facefit.fit.observation import Observation
from facefit.fit.placement import Drawn, Placed
from facefit.fit.solver import add
from facefit.fit.state import Shared, View
from facefit.fit.surface import FittingSurface
from facefit.render.camera import project
from facefit.render.lighting import irradiance

# Differences from the model's albedo, linear RGB: cut off at the first, doubted from the second on.
LARGEST, OUTLIER = 0.3, 0.12
DARKEST = 0.1  # irradiance below which a colour says nothing about the albedo
HIDDEN_MM = 4.0  # a vertex this far behind the drawn surface is hidden
# Weight of "as the model has it" beside a photograph that sees a vertex face on.
DOUBT = 0.4


def paint_from_others(
    fitting: FittingSurface,
    shared: Shared,
    views: Sequence[View],
    observations: Sequence[Observation],
    placed: Sequence[Placed],
    drawn: Sequence[Drawn],
) -> list[Float[Array, "V 3"]]:
    """For every photograph, the mean difference between the albedo seen in the others and the model's.

    Linear RGB at the vertices of `fitting.surface`; zero where no other photograph shows the vertex.
    """
    each = [_skin_seen(fitting, shared, *one) for one in zip(views, observations, placed, drawn, strict=True)]
    total = functools.reduce(add, each)
    return [_of_the_others(total, own) for own in each]


@cache.remembered
def _skin_seen(
    fitting: FittingSurface, shared: Shared, view: View, seen: Observation, placed: Placed, drawn: Drawn
) -> tuple[Float[Array, "V 3"], Float[Array, "V 1"]]:
    """What one photograph shows beside the model's albedo, times how far it is to be believed; and that."""
    model = fitting.surface
    albedo = model.albedo_mean + fitting.albedo_basis @ shared.albedo
    depth = jnp.einsum(
        "hwk,hwk->hw", drawn.barycentric, placed.vertices[:, 2][model.faces[jnp.maximum(drawn.face, 0)]]
    )
    depth = jnp.where(drawn.face >= 0, depth, 0.0)

    column, row = project(placed.vertices, placed.matrix).T - 0.5
    last = jnp.asarray(seen.weight.shape) - 1
    nearest = (
        jnp.clip(jnp.round(row).astype(jnp.int32), 0, last[0]),
        jnp.clip(jnp.round(column).astype(jnp.int32), 0, last[1]),
    )
    observed = jnp.concatenate([seen.image, seen.weight[..., None]], -1)
    sampled = jax.vmap(
        lambda values: jax.scipy.ndimage.map_coordinates(values, [row, column], order=1, mode="constant"),
        in_axes=-1,
        out_axes=-1,
    )(observed)
    light = jnp.maximum(irradiance(placed.normals, view.lighting), DARKEST)
    extra = jnp.clip(sampled[:, :3] / light - albedo, -LARGEST, LARGEST)
    weight = jnp.clip(2.5 * facing(placed.vertices, placed.normals), 0.0, 1.0)
    weight = fitting.photometric * weight * sampled[:, 3]
    weight = jnp.where(placed.vertices[:, 2] < depth[nearest] + HIDDEN_MM, weight, 0.0)[:, None]
    weight = weight / (1.0 + jnp.sum(extra**2, -1, keepdims=True) / OUTLIER**2)
    return weight * extra, weight


@cache.remembered
def _of_the_others(total, own) -> Float[Array, "V 3"]:
    extra, weight = jax.tree.map(jnp.subtract, total, own)
    return extra / (weight + DOUBT)
