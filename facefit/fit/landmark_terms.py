"""What landmarks and priors say of one photograph: residuals, their derivatives, and what is held fixed
during a solver step.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from facefit.energy.landmarks import LandmarkEvidence, Outline, facing, landmark_residuals, match_outline
from facefit.energy.priors import (
    distance_residual,
    exposure_residual,
    expression_residuals,
    lighting_residuals,
    shadow_residuals,
)
from facefit.energy.robust import geman_mcclure
from facefit.fit.derivatives import in_order, join, sweep, through
from facefit.fit.observation import Observation
from facefit.fit.placement import Placed, points_of
from facefit.fit.settings import Settings
from facefit.fit.solver import Linearization
from facefit.fit.state import Pose, Shared, View, camera
from facefit.fit.surface import APERTURES, JAW68, OVAL468, FittingSurface, PointBasis, select
from facefit.render.camera import intrinsics, project, to_camera


@struct.dataclass
class Correspondence:
    """What is held fixed during one solver step.

    Attributes:
        landmarks: dense, then sparse, then outline points.
        evidence: of those, in the same order.
        depth_weight: of the dense landmarks' depths, (468,).
        aperture_weight: of the distances between lids and between lips, (P,).
    """

    landmarks: PointBasis
    evidence: LandmarkEvidence
    depth_weight: Float[Array, " 468"]
    aperture_weight: Float[Array, " P"]


def correspond(
    fitting: FittingSurface, settings: Settings, seen: Observation, placed: Placed
) -> Correspondence:
    """Finds which points are visible, and the vertices that form the outline."""
    corner = fitting.landmark_corner
    own_facing = facing(placed.vertices[corner].mean(1), placed.normals[corner].mean(1))
    oval, jaw = jnp.asarray(OVAL468), jnp.asarray(JAW68)
    candidates = placed.vertices[fitting.outline]
    match = functools.partial(
        match_outline,
        candidates,
        placed.normals[fitting.outline],
        project(candidates, placed.matrix),
        unit=seen.unit,
    )
    oval_match = match(seen.points468[oval, :2], own_facing[oval])
    jaw_match = match(seen.points68[jaw], own_facing[468 + jaw])
    parts = (
        fitting.landmarks,
        select(fitting.points, fitting.outline[oval_match.vertex]),
        select(fitting.points, fitting.outline[jaw_match.vertex]),
    )
    landmarks = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    return Correspondence(landmarks, *_evidence(fitting, settings, seen, own_facing, oval_match, jaw_match))


def _evidence(
    fitting: FittingSurface,
    settings: Settings,
    seen: Observation,
    own_facing: Float[Array, " L"],
    oval_match: Outline,
    jaw_match: Outline,
) -> tuple[LandmarkEvidence, Float[Array, " 468"], Float[Array, " P"]]:
    """Whitening and weight of all landmarks, and the weights of the dense depths and of the apertures."""
    oval, jaw = jnp.asarray(OVAL468), jnp.asarray(JAW68)
    # A point on the far side of the face is where the network imagines it.
    visible = 0.1 + 0.9 * jnp.clip(2.0 * own_facing + 0.5, 0.0, 1.0)
    dense = visible[:468] * (settings.dense_count / 468.0) * seen.weight468
    depth = visible[:468] * (settings.depth_count / 468.0) * seen.weight468
    dense = dense.at[oval].multiply(1.0 - oval_match.weight)
    sparse = visible[468:] * (settings.sparse_count / 68.0) * seen.weight68
    sparse = sparse.at[jaw].multiply(1.0 - jaw_match.weight)
    own = fitting.errors.sigma[:, 0] ** 2 + (0.5 * fitting.scatter468) ** 2
    dense_sigma = jnp.sqrt(settings.dense_sigma**2 + own)
    identity = jnp.eye(2)

    def along(match: Outline):
        return match.normal[:, :, None] * match.normal[:, None, :] / settings.outline_sigma

    whitening = jnp.concatenate(
        [
            identity / dense_sigma[:, None, None],
            jnp.broadcast_to(identity / settings.sparse_sigma, (68, 2, 2)),
            along(oval_match),
            along(jaw_match),
        ]
    )
    observed = jnp.concatenate(
        [seen.points468[:, :2], seen.points68, seen.points468[oval, :2], seen.points68[jaw]]
    )
    outline_share = settings.outline_count / jnp.asarray([len(OVAL468), len(JAW68)], jnp.float32)
    weight = jnp.concatenate(
        [
            dense,
            sparse,
            oval_match.weight * outline_share[0] * seen.weight468,
            jaw_match.weight * outline_share[1] * seen.weight68,
        ]
    )
    apertures = visible[jnp.asarray(APERTURES)].min(1) * seen.weight468
    evidence = LandmarkEvidence(observed, whitening / seen.unit, weight * seen.share)
    return evidence, depth * seen.share, apertures * seen.share


def landmark_terms(
    fitting: FittingSurface,
    settings: Settings,
    shared: Shared,
    view: View,
    seen: Observation,
    fixed: Correspondence,
) -> dict[str, Array]:
    """Every residual of one photograph by name, but for those of its colours."""
    points = points_of(fixed.landmarks, shared, view)
    rows = _Rows(fitting, settings, seen, fixed)
    return rows.terms(points, points[jnp.asarray(APERTURES)], view, shared.log_focal[seen.focal_group])


class _Rows:
    """The terms as functions of what they depend on."""

    def __init__(self, fitting: FittingSurface, settings: Settings, seen: Observation, fixed: Correspondence):
        self.fitting, self.settings, self.seen, self.fixed = fitting, settings, seen, fixed

    def terms(self, points, pairs, view: View, log_focal) -> dict[str, Array]:
        return {
            "landmarks": self.landmarks(points, view.pose, log_focal),
            "depth": self.depth(points[:468], view.pose, view.depth_zero),
            "apertures": self.apertures(pairs, view.pose, log_focal),
            **self.priors(log_focal, view),
        }

    def _projected(self, points, pose: Pose, log_focal):
        focal, translation = camera(log_focal, pose, self.seen)
        placed = to_camera(points, pose.rotation, translation)
        return project(placed, intrinsics(focal, self.seen.principal))

    def landmarks(self, points, pose: Pose, log_focal):
        projected = self._projected(points, pose, log_focal)
        return landmark_residuals(projected, self.fixed.evidence, self.settings.landmark_outlier)

    def depth(self, points, pose: Pose, depth_zero):
        seen, errors = self.seen, self.fitting.errors
        depth = to_camera(points, pose.rotation, jnp.zeros(3))[:, 2] * jnp.exp(pose.log_scale)
        depth = depth + depth_zero + errors.depth_bias * seen.unit
        sigma = jnp.sqrt(self.settings.depth_sigma**2 + errors.sigma[:, 1] ** 2)
        difference = ((depth - seen.points468[:, 2]) / (sigma * seen.unit))[:, None]
        weight = jnp.sqrt(self.fixed.depth_weight)[:, None]
        return weight * geman_mcclure(difference, self.settings.landmark_outlier)

    def apertures(self, pairs, pose: Pose, log_focal):
        """How far lids and lips are apart: the network errs alike on both sides, so that it knows this better
        than where they are (compare the closure losses of Feng et al. 2021).
        """
        seen, index = self.seen, jnp.asarray(APERTURES)
        projected = self._projected(pairs.reshape(-1, 3), pose, log_focal).reshape(-1, 2, 2)
        away = (projected - seen.points468[index, :2]) / seen.unit
        difference = (away[:, 0] - away[:, 1]) / self.settings.aperture_sigma
        weight = jnp.sqrt(self.fixed.aperture_weight)[:, None]
        # A wide-open start is many of these narrow deviations away from a closed mouth, and no outlier.
        return weight * geman_mcclure(difference, 5.0 * self.settings.landmark_outlier)

    def priors(self, log_focal, view: View) -> dict[str, Array]:
        settings, seen = self.settings, self.seen
        _, translation = camera(log_focal, view.pose, seen)
        return {
            "prior_expression": expression_residuals(
                view.expression,
                settings.expression_sigma * self.fitting.expression_spread,
                self.fitting.surface.expression_is_blendshape,
            ),
            "prior_camera": jnp.stack(
                [
                    distance_residual(translation[2], settings.distance_mm, settings.distance_log_sigma),
                    (log_focal - seen.log_focal) / seen.log_focal_sigma,
                ]
            ),
            "prior_shadow": shadow_residuals(view.lighting, settings.negative_sigma),
            "prior_exposure": exposure_residual(view.lighting, settings.exposure_log_sigma),
            "prior_lighting": lighting_residuals(
                view.lighting, settings.lighting_sigma, settings.lighting_color_sigma
            ),
        }


def linearize_landmark_terms(
    fitting: FittingSurface,
    settings: Settings,
    shared: Shared,
    view: View,
    seen: Observation,
    fixed: Correspondence,
) -> tuple[Linearization, dict[str, Array]]:
    """The derivatives of `landmark_terms`, and the terms."""
    rows = _Rows(fitting, settings, seen, fixed)
    points, pairs = points_of(fixed.landmarks, shared, view), jnp.asarray(APERTURES)
    terms, by = sweep(
        lambda shift, apart, *rest: rows.terms(points + shift, points[pairs] + apart, *rest),
        jnp.zeros(3),
        jnp.zeros((2, 3)),
        view,
        shared.log_focal[seen.focal_group],
    )
    basis = fixed.landmarks.basis
    moved = {
        "landmarks": through(by["landmarks"][0], basis),
        "depth": through(by["depth"][0], basis[:468]),
        "apertures": through(by["apertures"][1], basis[pairs]),
    }
    derivatives = {
        name: in_order(shared, seen, by_view, by_focal, moved.get(name))
        for name, (*_, by_view, by_focal) in by.items()
    }
    return join(terms, derivatives), terms
