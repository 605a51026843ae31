"""What the other photographs of a person show on the skin that the model's albedo cannot: freckles, brows,
shadows under the eyes.

Compared with it, a photograph tells where the surface is, since the same spot must come out at the same
place in every photograph; a photograph's own colours would explain themselves wherever the surface is, so
they are left out of its own paint.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels import rasterize
from jaxtyping import Array, Float

from facefit import cache
from facefit.energy.landmarks import facing
from facefit.fit.observation import Observation
from facefit.fit.state import Shared, View, camera
from facefit.fit.surface import FittingSurface
from facefit.fit.terms import points_of
from facefit.render.camera import clip_coordinates, directions_to_camera, intrinsics, project, to_camera
from facefit.render.lighting import irradiance
from facefit.render.mesh import vertex_normals

# Differences from the model's albedo, linear RGB: cut off at the first, doubted from the second on.
LARGEST, OUTLIER = 0.3, 0.12
DARKEST = 0.1  # irradiance below which a colour says nothing about the albedo
HIDDEN_MM = 4.0  # a vertex this far behind the drawn surface is hidden
# Weight of "as the model has it" beside a photograph that sees a vertex face on.
DOUBT = 0.4


def no_paint(fitting: FittingSurface, observations: Observation) -> Float[Array, "N V 3"]:
    """The skin as the model has it, in every photograph."""
    return jnp.zeros((observations.share.shape[0], *fitting.surface.mean.shape))


def paint_from_others(
    fitting: FittingSurface, observations: Observation, shared: Shared, views: View
) -> Float[Array, "N V 3"]:
    """For every photograph, the mean difference between the albedo seen in the others and the model's.

    Linear RGB at the vertices of `fitting.surface`; zero where no other photograph shows the vertex, hence
    everywhere for a photograph that is alone.
    """
    if observations.share.shape[0] == 1:
        return no_paint(fitting, observations)
    return _leave_one_out(fitting, observations, shared, views)


@cache.remembered
def _leave_one_out(
    fitting: FittingSurface, observations: Observation, shared: Shared, views: View
) -> Float[Array, "N V 3"]:
    model = fitting.surface
    albedo = model.albedo_mean + fitting.albedo_basis @ shared.albedo

    def one(arguments) -> tuple[Float[Array, "V 3"], Float[Array, "V 1"]]:
        view, seen = arguments
        focal, translation = camera(shared.log_focal[seen.focal_group], view.pose, seen)
        matrix = intrinsics(focal, seen.principal)
        points = points_of(fitting.points, shared, view)
        normals = directions_to_camera(vertex_normals(points, model.faces), view.pose.rotation)
        placed = to_camera(points, view.pose.rotation, translation)
        size = seen.weight.shape
        fragments = rasterize(clip_coordinates(placed, matrix, size), model.faces, size)
        corner = model.faces[jnp.maximum(fragments.face_index[:, :, 0], 0)]
        depth = jnp.einsum("hwk,hwk->hw", fragments.barycentric[:, :, 0], placed[:, 2][corner])
        depth = jnp.where(fragments.face_index[:, :, 0] >= 0, depth, 0.0)

        column, row = project(placed, matrix).T - 0.5
        last = jnp.asarray(size) - 1
        nearest = (
            jnp.clip(jnp.round(row).astype(jnp.int32), 0, last[0]),
            jnp.clip(jnp.round(column).astype(jnp.int32), 0, last[1]),
        )

        def sample(values: Float[Array, "H W"]) -> Float[Array, " V"]:
            return jax.scipy.ndimage.map_coordinates(values, [row, column], order=1, mode="constant")

        color = jnp.stack([sample(seen.image[..., c]) for c in range(3)], -1)
        light = jnp.maximum(irradiance(normals, view.lighting), DARKEST)
        extra = jnp.clip(color / light - albedo, -LARGEST, LARGEST)
        weight = fitting.photometric * jnp.clip(2.5 * facing(placed, normals), 0.0, 1.0) * sample(seen.weight)
        weight = jnp.where(placed[:, 2] < depth[nearest] + HIDDEN_MM, weight, 0.0)[:, None]
        weight = weight / (1.0 + jnp.sum(extra**2, -1, keepdims=True) / OUTLIER**2)
        return weight * extra, weight

    extra, weight = jax.lax.map(one, (views, observations))
    return (extra.sum(0) - extra) / (weight.sum(0) - weight + DOUBT)
