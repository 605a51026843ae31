"""What the colours of one photograph say: residuals at chosen pixels, their derivatives, and what is held
fixed during a solver step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from facefit.color import luminance
from facefit.energy.landmarks import facing
from facefit.energy.photometric import PixelSample, photometric_residuals, rendered_colors
from facefit.fit.derivatives import in_order, join, sweep, through
from facefit.fit.observation import Observation
from facefit.fit.placement import Drawn, Placed, points_of
from facefit.fit.settings import Settings
from facefit.fit.solver import Linearization
from facefit.fit.state import Pose, Shared, View, camera
from facefit.fit.surface import FittingSurface, PointBasis, select
from facefit.render.camera import to_camera


@struct.dataclass
class Pixels:
    """M pixels and what the parameters do to their triangles; gathered once a step.

    Attributes:
        sample: where they are and what they show.
        corners: the triangles' corners, (3 M points).
        albedo_mean: at the corners, (M, 3, 3).
        albedo_basis: at the corners, (M, 3, 3, A).
        normals: unit vertex normals in the camera frame, held fixed, (M, 3, 3).
    """

    sample: PixelSample
    corners: PointBasis
    albedo_mean: Float[Array, "M 3 3"]
    albedo_basis: Float[Array, "M 3 3 A"]
    normals: Float[Array, "M 3 3"]


def choose_pixels(
    fitting: FittingSurface,
    settings: Settings,
    seen: Observation,
    placed: Placed,
    drawn: Drawn,
    paint: Float[Array, "V 3"],
) -> Pixels:
    """Picks the pixels to be compared.

    Args:
        paint: what other photographs show beside the model's albedo, see `facefit.fit.paint`.
    """
    model, size = fitting.surface, settings.crop_px
    corner = model.faces[jnp.maximum(drawn.face, 0)]
    # The colour of a surface seen edge-on is the least certain: less light, coarse normals, hair, blur.
    usable = fitting.photometric * jnp.clip(2.5 * facing(placed.vertices, placed.normals), 0.0, 1.0)
    weight = jnp.einsum("hwk,hwk->hw", drawn.barycentric, usable[corner]) * seen.weight
    weight = jnp.where((drawn.face >= 0) & _one_in_four(size), weight, 0.0)
    # More usable pixels than places: the least certain ones are left out.
    chosen, index = jax.lax.top_k(weight.ravel(), settings.pixels)
    rows, columns = index // size, index % size
    # A face that is mostly hidden has fewer independent pixels, not heavier ones.
    share = seen.share * settings.photometric_count / jnp.maximum(jnp.sum(chosen), 0.05 * size * size)
    center = jnp.stack([columns + 0.5, rows + 0.5], -1).astype(jnp.float32)
    corner = corner[rows, columns]
    return Pixels(
        sample=PixelSample(
            corner=corner,
            barycentric=drawn.barycentric[rows, columns],
            ray=center - seen.principal,
            color=seen.image[rows, columns],
            weight=chosen * share,
        ),
        corners=select(fitting.points, corner.ravel()),
        albedo_mean=(model.albedo_mean + paint)[corner],
        albedo_basis=fitting.albedo_basis[corner],
        normals=placed.normals[corner],
    )


def _one_in_four(size: int) -> Bool[np.ndarray, "S S"]:
    """Every other pixel of every other row: neighbours tell much the same, and cost as much again."""
    return (np.indices((size, size)) % 2 == 0).all(0)


def corner_albedo(pixels: Pixels, shared: Shared) -> Float[Array, "M 3 3"]:
    """Linear RGB at the corners of the pixels' triangles."""
    return pixels.albedo_mean + pixels.albedo_basis @ shared.albedo


def _rows(
    settings: Settings, seen: Observation, fixed: Pixels, corners, albedo, lighting, pose: Pose, log_focal
):
    """Photometric residuals, (M, 3)."""
    focal, translation = camera(log_focal, pose, seen)
    placed = to_camera(corners, pose.rotation, translation)
    sample = fixed.sample
    colors = rendered_colors(placed, fixed.normals, albedo, lighting, focal, sample.ray)
    # A grey photograph tells how light the skin is and nothing of its colour.
    colors = jnp.where(seen.grey, luminance(colors)[:, None], colors)
    return photometric_residuals(
        colors, sample.color, sample.weight, settings.photometric_sigma, settings.photometric_outlier
    )


def pixel_terms(
    settings: Settings, shared: Shared, view: View, seen: Observation, fixed: Pixels
) -> dict[str, Array]:
    """The photometric residuals."""
    corners = points_of(fixed.corners, shared, view).reshape(-1, 3, 3)
    albedo, log_focal = corner_albedo(fixed, shared), shared.log_focal[seen.focal_group]
    return {"photometric": _rows(settings, seen, fixed, corners, albedo, view.lighting, view.pose, log_focal)}


def linearize_pixel_terms(
    settings: Settings, shared: Shared, view: View, seen: Observation, fixed: Pixels
) -> tuple[Linearization, dict[str, Array]]:
    """The derivatives of `pixel_terms`, rows pixel by pixel, red, green, blue; and the terms."""
    corners = points_of(fixed.corners, shared, view).reshape(-1, 3, 3)
    albedo = corner_albedo(fixed, shared)
    rows, (by_corner, by_albedo, lighting, pose, focal) = sweep(
        lambda shift, paler, *rest: _rows(settings, seen, fixed, corners + shift, albedo + paler, *rest),
        jnp.zeros((3, 3)),
        jnp.zeros(3),
        view.lighting,
        view.pose,
        shared.log_focal[seen.focal_group],
    )
    # The albedo basis at the pixel itself: where its ray meets the triangle.
    basis = jnp.einsum("mk,mkca->mca", fixed.sample.barycentric, fixed.albedo_basis)
    unmoved = jax.tree.map(lambda leaf: jnp.zeros((*rows.shape, *leaf.shape)), view)
    derivatives = in_order(
        shared,
        seen,
        unmoved.replace(lighting=lighting, pose=pose),
        focal,
        through(by_corner, fixed.corners.basis),
        through(by_albedo, basis),
    )
    terms = {"photometric": rows}
    return join(terms, {"photometric": derivatives}), terms
