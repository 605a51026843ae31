"""The photometric term at the pixels that a rasterizer has assigned to triangles.

With visibility held fixed a pixel's colour is a smooth function of all parameters: where its ray meets its
triangle (the barycentric weights move as the triangle moves), the albedo and normal there, and the light.
This is the renderer without its silhouettes, at chosen pixels only, and cheap enough for dense Jacobians.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from facefit.color import linear_to_srgb
from facefit.energy.robust import geman_mcclure
from facefit.render.lighting import shade
from facefit.render.mesh import normalize


@struct.dataclass
class PixelSample:
    """M pixels of one photograph and the triangles seen there.

    Attributes:
        corner: vertex indices of the triangle at each pixel, (M, 3).
        barycentric: where in the triangle the pixel's centre is, (M, 3).
        ray: offset of the pixel's centre from the principal point, pixels, (M, 2).
        color: the photograph's linear RGB, (M, 3).
        weight: 0 where the pixel does not count (no triangle, not skin, outside the photograph), (M,).
    """

    corner: Int[Array, "M 3"]
    barycentric: Float[Array, "M 3"]
    ray: Float[Array, "M 2"]
    color: Float[Array, "M 3"]
    weight: Float[Array, " M"]


def ray_barycentric(
    a: Float[Array, "M 3"], b: Float[Array, "M 3"], c: Float[Array, "M 3"], ray: Float[Array, "M 3"]
) -> Float[Array, "M 3"]:
    """Barycentric weights at which rays from the origin meet the planes of triangles (perspective-correct).

    They are the signed volumes that the ray spans with the opposite edges, divided by their sum.
    """
    volumes = jnp.stack(
        [
            jnp.sum(ray * jnp.cross(b, c), -1),
            jnp.sum(ray * jnp.cross(c, a), -1),
            jnp.sum(ray * jnp.cross(a, b), -1),
        ],
        axis=-1,
    )
    total = jnp.sum(volumes, -1, keepdims=True)
    return volumes / jnp.where(jnp.abs(total) < 1e-6, 1e-6, total)


def rendered_colors(
    corners: Float[Array, "M 3 3"],
    corner_normals: Float[Array, "M 3 3"],
    corner_albedo: Float[Array, "M 3 3"],
    lighting: Float[Array, "9 3"],
    focal: Float[Array, ""],
    ray: Float[Array, "M 2"],
) -> Float[Array, "M 3"]:
    """Linear colours of the surface at pixels whose triangles are known; every row depends on its own
    triangle alone.

    Args:
        corners: of each pixel's triangle, camera frame, millimetres (pixel, corner, xyz).
        corner_normals: unit vertex normals there, camera frame, held fixed: their value is used, while the
            derivative of the normal is that of the pixel's own triangle. The two differ by the curvature
            within one ring of triangles, and the second needs no sum over neighbours.
        corner_albedo: linear RGB there.
        focal: pixels.
        ray: offset of the pixel from the principal point, pixels.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    direction = jnp.concatenate([ray / focal, jnp.ones_like(ray[:, :1])], -1)
    weights = ray_barycentric(a, b, c, direction)
    facet = normalize(jnp.cross(b - a, c - a))
    interpolated = jnp.einsum("mk,mkc->mc", weights, corner_normals)
    normal = normalize(interpolated + facet - jax.lax.stop_gradient(facet))
    return shade(jnp.einsum("mk,mkc->mc", weights, corner_albedo), normal, lighting)


def photometric_residuals(
    rendered: Float[Array, "M 3"],
    observed: Float[Array, "M 3"],
    weight: Float[Array, " M"],
    sigma: float,
    outlier: float,
) -> Float[Array, "M 3"]:
    """Robust differences of rendered and photographed colours, in standard deviations.

    Differences are taken of sRGB values: cameras' noise, and what a model cannot explain of skin, are about
    equally large there for light and dark skin, while linear light would all but ignore the dark.

    Args:
        rendered, observed: linear RGB.
        weight: share of an independent measurement.
        sigma: standard deviation of an sRGB value in [0, 1].
        outlier: scale of the Geman-McClure penalty, standard deviations.
    """
    difference = (linear_to_srgb(rendered) - linear_to_srgb(observed)) / sigma
    return geman_mcclure(difference, outlier, weight)


def photometric_loss(
    rendered: Float[Array, "*batch H W 3"],
    observed: Float[Array, "*batch H W 3"],
    weight: Float[Array, "*batch H W"],
) -> Float[Array, ""]:
    """Mean distance of colours under the attention of `weight`, over all photographs together (Deng et al.
    2019): sum of weight x |difference| / max(1, sum of weight), the distance over the three channels.

    Args:
        rendered, observed: sRGB, [0, 1] where nothing is over-exposed.
        weight: skin times the drawn face's coverage, in [0, 1]; no gradient is led through it.
    """
    weight = jax.lax.stop_gradient(weight)
    # The root of zero has no derivative: 1e-6 as in the authors' program.
    distance = jnp.sqrt(1e-6 + jnp.sum((rendered - observed) ** 2, -1))
    return jnp.sum(weight * distance) / jnp.maximum(jnp.sum(weight), 1.0)
