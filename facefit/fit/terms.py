"""The residuals of one view and their derivatives, put together from the energy terms.

Every landmark and every pixel depends on few numbers: the model-frame positions of one or three points, the
pose, the light. So derivatives are taken with respect to those, row by row, and led on to identity and
expression, which move the points linearly, by one matrix product. The result equals a dense forward sweep
over all parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from facefit.energy.landmarks import LandmarkEvidence, landmark_residuals
from facefit.energy.photometric import PixelSample, photometric_residuals, rendered_colors
from facefit.energy.priors import (
    distance_residual,
    exposure_residual,
    expression_residuals,
    lighting_residuals,
)
from facefit.energy.robust import geman_mcclure
from facefit.fit.observation import Observation
from facefit.fit.settings import Settings
from facefit.fit.solver import Linearization
from facefit.fit.state import Pose, Shared, View, camera
from facefit.fit.surface import OVAL468, FittingSurface, PointBasis
from facefit.render.camera import intrinsics, project, to_camera

# Rows of the landmark term: 468 dense and 68 sparse landmarks, then the outline of the oval, then that of the
# jaw.
OVAL_ROWS = slice(468 + 68, 468 + 68 + len(OVAL468))


@struct.dataclass
class PixelBasis:
    """What the parameters do to the triangles of M pixels; gathered once a step.

    Attributes:
        corners: the triangles' corners, (3 M points).
        albedo_mean: at the corners, (M, 3, 3).
        albedo_basis: at the corners, (M, 3, 3, A).
        normals: unit vertex normals in the camera frame, held fixed, (M, 3, 3).
    """

    corners: PointBasis
    albedo_mean: Float[Array, "M 3 3"]
    albedo_basis: Float[Array, "M 3 3 A"]
    normals: Float[Array, "M 3 3"]


@struct.dataclass
class Prepared:
    """What is held fixed during one solver step, for one view.

    Attributes:
        observation: the view's observation.
        landmarks: dense, then sparse, then outline points.
        evidence: of those, in the same order.
        drift: modes of the dense landmarks' error, (468, 3, D).
        depth_weight, depth_sigma, depth_bias: of the dense landmarks' depths, (468,).
        pixels, sample: the compared pixels and their triangles; None in the landmark stage.
    """

    observation: Observation
    landmarks: PointBasis
    evidence: LandmarkEvidence
    drift: Float[Array, "468 3 D"]
    depth_weight: Float[Array, " 468"]
    depth_sigma: Float[Array, " 468"]
    depth_bias: Float[Array, " 468"]
    pixels: PixelBasis | None
    sample: PixelSample | None


def points_of(basis: PointBasis, shared: Shared, view: View) -> Float[Array, "n 3"]:
    """Model-frame positions, millimetres."""
    return basis.mean + basis.basis @ jnp.concatenate([shared.identity, view.expression])


def corner_albedo(pixels: PixelBasis, shared: Shared) -> Float[Array, "M 3 3"]:
    """Linear RGB at the corners of the pixels' triangles."""
    return pixels.albedo_mean + pixels.albedo_basis @ shared.albedo


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


def _through(derivative: Float[Array, "n D P"], basis: Float[Array, "n *K C"]) -> Float[Array, "m C"]:
    """Chains derivatives by rows of P numbers with a basis of C components over those numbers."""
    rows, outputs, width = derivative.shape
    return jnp.matmul(derivative, basis.reshape(rows, width, -1)).reshape(rows * outputs, -1)


def _columns(derivative) -> Float[Array, "R K"]:
    """A pytree of derivatives (n, D, ...) as a matrix of n D rows."""
    leaves = jax.tree.leaves(derivative)
    rows = leaves[0].shape[0] * leaves[0].shape[1]
    return jnp.concatenate([leaf.reshape(rows, -1) for leaf in leaves], axis=1)


def _landmark_rows(settings: Settings, points, pose: Pose, log_focal, drift, fixed: Prepared):
    seen = fixed.observation
    focal, translation = camera(log_focal, pose, seen)
    placed = to_camera(points, pose.rotation, translation)
    projected = project(placed, intrinsics(focal, seen.principal))
    # The network's own error is part of what is to be explained; the oval's outline rows share that of their
    # points.
    moved = (fixed.drift[:, :2] @ drift) * seen.unit
    projected = projected.at[:468].add(moved)
    projected = projected.at[OVAL_ROWS].add(moved[jnp.asarray(OVAL468)])
    return landmark_residuals(projected, fixed.evidence, settings.landmark_outlier)


def _depth_rows(settings: Settings, points, pose: Pose, drift, depth_zero, fixed: Prepared):
    seen = fixed.observation
    depth = to_camera(points, pose.rotation, jnp.zeros(3))[:, 2] * jnp.exp(pose.log_scale)
    depth = depth + depth_zero + (fixed.depth_bias + fixed.drift[:, 2] @ drift) * seen.unit
    difference = ((depth - seen.points468[:, 2]) / (fixed.depth_sigma * seen.unit))[:, None]
    return jnp.sqrt(fixed.depth_weight)[:, None] * geman_mcclure(difference, settings.landmark_outlier)


def _pixel_rows(
    settings: Settings, corners, albedo_shift, lighting, pose: Pose, log_focal, albedo, fixed: Prepared
):
    """Photometric residuals; `albedo_shift` (M, 3) is added to the albedo of all corners (it serves the
    derivative).
    """
    seen, sample = fixed.observation, fixed.sample
    focal, translation = camera(log_focal, pose, seen)
    placed = to_camera(corners, pose.rotation, translation)
    colors = rendered_colors(
        placed, fixed.pixels.normals, albedo + albedo_shift[:, None], lighting, focal, sample.ray
    )
    return photometric_residuals(
        colors, sample.color, sample.weight, settings.photometric_sigma, settings.photometric_outlier
    )


def _prior_rows(
    fitting: FittingSurface, settings: Settings, log_focal, view: View, seen: Observation
) -> dict:
    _, translation = camera(log_focal, view.pose, seen)
    return {
        "prior_drift": view.drift / settings.drift_sigma,
        "prior_expression": expression_residuals(
            view.expression, settings.expression_sigma, fitting.surface.expression_is_blendshape
        ),
        "prior_camera": jnp.stack(
            [
                distance_residual(translation[2], settings.distance_mm, settings.distance_log_sigma),
                (log_focal - seen.log_focal) / seen.log_focal_sigma,
            ]
        ),
        "prior_exposure": exposure_residual(view.lighting, settings.exposure_log_sigma),
        "prior_lighting": lighting_residuals(
            view.lighting, settings.lighting_sigma, settings.lighting_color_sigma
        ),
    }


def view_terms(
    fitting: FittingSurface, settings: Settings, shared: Shared, view: View, fixed: Prepared
) -> dict[str, Array]:
    """Every residual of one photograph by name; the photometric one where pixels were sampled."""
    seen = fixed.observation
    log_focal = shared.log_focal[seen.focal_group]
    points = points_of(fixed.landmarks, shared, view)
    terms = {"landmarks": _landmark_rows(settings, points, view.pose, log_focal, view.drift, fixed)}
    terms["depth"] = _depth_rows(settings, points[:468], view.pose, view.drift, view.depth_zero, fixed)
    if fixed.sample is not None:
        corners = points_of(fixed.pixels.corners, shared, view).reshape(-1, 3, 3)
        albedo = corner_albedo(fixed.pixels, shared)
        none = jnp.zeros_like(fixed.sample.color)
        terms["photometric"] = _pixel_rows(
            settings, corners, none, view.lighting, view.pose, log_focal, albedo, fixed
        )
    return terms | _prior_rows(fitting, settings, log_focal, view, seen)


def flatten(terms: dict[str, Array]) -> Float[Array, " R"]:
    """All residuals in one vector, terms in alphabetical order."""
    return jnp.concatenate([terms[name].ravel() for name in sorted(terms)])


def linearize(
    fitting: FittingSurface, settings: Settings, shared: Shared, view: View, fixed: Prepared
) -> Linearization:
    """`view_terms` flattened, with derivatives with respect to `shared` and `view` in ravel order."""
    seen = fixed.observation
    group = jax.nn.one_hot(seen.focal_group, shared.log_focal.shape[0])
    log_focal = shared.log_focal[seen.focal_group]
    sizes = (shared.identity.size, shared.albedo.size, view.expression.size)

    def rows(
        points=None, albedo=None, focal=None, expression=None, pose=None, lighting=None, drift=None, zero=None
    ):
        """One term's derivative blocks in ravel order; a block left out is zero. `points` is identity,
        expression.
        """
        count = next(
            block.shape[0] for block in (points, expression, pose, lighting, drift) if block is not None
        )
        identity = None
        if points is not None:
            identity, expression = jnp.split(points, [sizes[0]], axis=1)

        def block(value, width):
            return jnp.zeros((count, width)) if value is None else value.reshape(count, width)

        focal = jnp.zeros((count,)) if focal is None else focal.reshape(count)
        left = [block(identity, sizes[0]), block(albedo, sizes[1]), focal[:, None] * group]
        right = [block(expression, sizes[2]), block(pose, 6), block(lighting, 27)]
        right += [block(drift, view.drift.size), block(zero, 1)]
        return jnp.concatenate(left, 1), jnp.concatenate(right, 1)

    points = points_of(fixed.landmarks, shared, view)
    derivatives = {}
    by_point = rowwise_derivative(
        lambda x: _landmark_rows(settings, x, view.pose, log_focal, view.drift, fixed), points
    )
    by_pose, by_focal, by_drift = jax.jacfwd(
        lambda pose, f, drift: _landmark_rows(settings, points, pose, f, drift, fixed), argnums=(0, 1, 2)
    )(view.pose, log_focal, view.drift)
    derivatives["landmarks"] = rows(
        points=_through(by_point, fixed.landmarks.basis),
        focal=by_focal,
        pose=_columns(by_pose),
        drift=_columns(by_drift),
    )
    by_point = rowwise_derivative(
        lambda x: _depth_rows(settings, x, view.pose, view.drift, view.depth_zero, fixed), points[:468]
    )
    by_pose, by_drift, by_zero = jax.jacfwd(
        lambda pose, drift, zero: _depth_rows(settings, points[:468], pose, drift, zero, fixed),
        argnums=(0, 1, 2),
    )(view.pose, view.drift, view.depth_zero)
    derivatives["depth"] = rows(
        points=_through(by_point, fixed.landmarks.basis[:468]),
        pose=_columns(by_pose),
        drift=_columns(by_drift),
        zero=by_zero,
    )
    if fixed.sample is not None:
        derivatives["photometric"] = rows(**_pixel_derivatives(settings, shared, view, log_focal, fixed))

    def priors(log_focal, view):
        return _prior_rows(fitting, settings, log_focal, view, seen)

    for name, (by_focal, by_view) in jax.jacfwd(lambda f, v: priors(f, v), argnums=(0, 1))(
        log_focal, view
    ).items():
        count = by_focal.shape[0]
        derivatives[name] = rows(
            focal=by_focal,
            expression=by_view.expression,
            pose=jnp.concatenate([leaf.reshape(count, -1) for leaf in jax.tree.leaves(by_view.pose)], 1),
            lighting=by_view.lighting.reshape(count, 27),
            drift=by_view.drift,
        )
    order = sorted(derivatives)
    return Linearization(
        residual=flatten(view_terms(fitting, settings, shared, view, fixed)),
        shared=jnp.concatenate([derivatives[name][0] for name in order]),
        view=jnp.concatenate([derivatives[name][1] for name in order]),
    )


def _pixel_derivatives(settings: Settings, shared: Shared, view: View, log_focal, fixed: Prepared) -> dict:
    """Blocks of the photometric term; rows are pixel by pixel, red, green, blue."""
    pixels = fixed.pixels
    corners = points_of(pixels.corners, shared, view).reshape(-1, 3, 3)
    albedo = corner_albedo(pixels, shared)
    none = jnp.zeros_like(fixed.sample.color)

    def of(corners, shift, lighting, pose, focal):
        return _pixel_rows(settings, corners, shift, lighting, pose, focal, albedo, fixed)

    by_corner = rowwise_derivative(lambda x: of(x, none, view.lighting, view.pose, log_focal), corners)
    by_shift = rowwise_derivative(lambda x: of(corners, x, view.lighting, view.pose, log_focal), none)
    by_light, by_pose, by_focal = jax.jacfwd(
        lambda light, pose, focal: of(corners, none, light, pose, focal), argnums=(0, 1, 2)
    )(view.lighting, view.pose, log_focal)
    # The albedo basis at the pixel itself: where its ray meets the triangle.
    basis = jnp.einsum("mk,mkca->mca", fixed.sample.barycentric, pixels.albedo_basis)
    return {
        "points": _through(by_corner, pixels.corners.basis),
        "albedo": _through(by_shift, basis),
        "lighting": _columns(by_light),
        "pose": _columns(by_pose),
        "focal": by_focal,
    }
