"""The stages of a fit as pure jitted functions: landmarks alone, then landmarks and colours, then the
photographs of one person compared with each other.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from facefit_kernels import rasterize
from jaxtyping import Array, Float

from facefit import cache
from facefit.energy.landmarks import LandmarkEvidence, Outline, facing, match_outline
from facefit.energy.photometric import PixelSample
from facefit.fit.observation import Observation
from facefit.fit.paint import no_paint, paint_from_others
from facefit.fit.settings import Settings
from facefit.fit.solver import Solution, begin, levenberg_marquardt_step
from facefit.fit.state import Shared, View, camera
from facefit.fit.surface import JAW68, OVAL468, FittingSurface, PointBasis, select
from facefit.fit.terms import PixelBasis, Prepared, flatten, linearize, points_of, view_terms
from facefit.render.camera import clip_coordinates, directions_to_camera, intrinsics, project, to_camera
from facefit.render.mesh import vertex_normals


def _join(*parts: PointBasis) -> PointBasis:
    return PointBasis(
        jnp.concatenate([part.mean for part in parts]), jnp.concatenate([part.basis for part in parts])
    )


def prepare(
    fitting: FittingSurface,
    settings: Settings,
    photometric: bool,
    shared: Shared,
    view: View,
    seen: Observation,
    paint: Float[Array, "V 3"],
) -> Prepared:
    """Finds what a solver step holds fixed: which points are visible, the outline, the pixels' triangles.

    Args:
        paint: what other photographs show beside the model's albedo, see `facefit.fit.paint`.
    """
    model = fitting.surface
    focal, translation = camera(shared.log_focal[seen.focal_group], view.pose, seen)
    matrix = intrinsics(focal, seen.principal)
    points = points_of(fitting.points, shared, view)
    normals = directions_to_camera(vertex_normals(points, model.faces), view.pose.rotation)
    placed = to_camera(points, view.pose.rotation, translation)

    own_facing = facing(placed[fitting.landmark_corner].mean(1), normals[fitting.landmark_corner].mean(1))
    oval, jaw = jnp.asarray(OVAL468), jnp.asarray(JAW68)
    candidates = placed[fitting.outline]
    match = functools.partial(
        match_outline, candidates, normals[fitting.outline], project(candidates, matrix), unit=seen.unit
    )
    oval_match = match(seen.points468[oval, :2], own_facing[oval])
    jaw_match = match(seen.points68[jaw], own_facing[468 + jaw])
    evidence, depth_weight = _evidence(fitting, settings, seen, own_facing, oval_match, jaw_match)
    pixels = sample = None
    if photometric:
        sample = _sample(fitting, settings, placed, normals, matrix, seen)
        pixels = PixelBasis(
            corners=select(fitting.points, sample.corner.ravel()),
            albedo_mean=(model.albedo_mean + paint)[sample.corner],
            albedo_basis=fitting.albedo_basis[sample.corner],
            normals=normals[sample.corner],
        )
    return Prepared(
        observation=seen,
        landmarks=_join(
            fitting.landmarks,
            select(fitting.points, fitting.outline[oval_match.vertex]),
            select(fitting.points, fitting.outline[jaw_match.vertex]),
        ),
        evidence=evidence,
        drift=fitting.drift.modes,
        depth_weight=depth_weight,
        depth_sigma=jnp.sqrt(settings.depth_sigma**2 + fitting.drift.sigma[:, 1] ** 2),
        depth_bias=fitting.drift.depth_bias,
        pixels=pixels,
        sample=sample,
    )


def _evidence(
    fitting: FittingSurface,
    settings: Settings,
    seen: Observation,
    own_facing: Float[Array, " L"],
    oval_match: Outline,
    jaw_match: Outline,
) -> tuple[LandmarkEvidence, Float[Array, " 468"]]:
    """Whitening and weight of all landmarks, and the weight of the dense depths."""
    oval, jaw = jnp.asarray(OVAL468), jnp.asarray(JAW68)
    # A point on the far side of the face is where the network imagines it.
    visible = 0.1 + 0.9 * jnp.clip(2.0 * own_facing + 0.5, 0.0, 1.0)
    dense = visible[:468] * (settings.dense_count / 468.0) * seen.weight468
    depth = visible[:468] * (settings.depth_count / 468.0) * seen.weight468
    dense = dense.at[oval].multiply(1.0 - oval_match.weight)
    sparse = visible[468:] * (settings.sparse_count / 68.0) * seen.weight68
    sparse = sparse.at[jaw].multiply(1.0 - jaw_match.weight)
    own = fitting.drift.sigma[:, 0] ** 2 + (0.5 * fitting.scatter468) ** 2
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
    return LandmarkEvidence(observed, whitening / seen.unit, weight * seen.share), depth * seen.share


def _sample(
    fitting: FittingSurface, settings: Settings, placed, normals, matrix, seen: Observation
) -> PixelSample:
    """Rasterizes the face and picks the pixels to be compared."""
    model, size = fitting.surface, settings.crop_px
    fragments = rasterize(clip_coordinates(placed, matrix, (size, size)), model.faces, (size, size))
    face, barycentric = fragments.face_index[:, :, 0], fragments.barycentric[:, :, 0]
    corner = model.faces[jnp.maximum(face, 0)]
    # The colour of a surface seen edge-on is the least certain: less light, coarse normals, hair, blur.
    usable = fitting.photometric * jnp.clip(2.5 * facing(placed, normals), 0.0, 1.0)
    weight = jnp.einsum("hwk,hwk->hw", barycentric, usable[corner]) * seen.weight
    weight = jnp.where(face >= 0, weight, 0.0)
    # More usable pixels than places: the least certain ones are left out.
    chosen, index = jax.lax.top_k(weight.ravel(), settings.pixels)
    rows, columns = index // size, index % size
    # A face that is mostly hidden has fewer independent pixels, not heavier ones.
    share = seen.share * settings.photometric_count / jnp.maximum(jnp.sum(chosen), 0.1 * size * size)
    center = jnp.stack([columns + 0.5, rows + 0.5], -1).astype(jnp.float32)
    return PixelSample(
        corner=corner[rows, columns],
        barycentric=barycentric[rows, columns],
        ray=center - seen.principal,
        color=seen.image[rows, columns],
        weight=chosen * share,
    )


def _shared_residuals(settings: Settings, shared: Shared) -> Float[Array, " Q"]:
    # Focal lengths get their priors from the views; a tiny pull keeps unused groups determined.
    return jnp.concatenate(
        [shared.identity / settings.identity_sigma, shared.albedo, 1e-3 * shared.log_focal]
    )


@cache.remembered(static_argnames=("photometric",))
def step(
    fitting: FittingSurface,
    observations: Observation,
    paint: Float[Array, "N V 3"],
    solution: Solution,
    settings: Settings,
    photometric: bool,
) -> Solution:
    """One solver step of a stage. Compiled once per model size, number of views and settings."""
    return levenberg_marquardt_step(
        solution,
        view_residuals=lambda s, v, fixed: flatten(view_terms(fitting, settings, s, v, fixed)),
        linearize=lambda s, v, fixed: linearize(fitting, settings, s, v, fixed),
        shared_residuals=lambda s: _shared_residuals(settings, s),
        prepare=lambda s, v, data: prepare(fitting, settings, photometric, s, v, *data),
        data=(observations, paint),
    )


def run_stage(
    fitting: FittingSurface,
    observations: Observation,
    shared: Shared,
    views: View,
    settings: Settings,
    photometric: bool,
    steps: int,
    together: bool = False,
) -> Solution:
    """Runs one stage from the given parameters.

    The loop is on the host: XLA's CPU backend runs the body of a compiled loop on one core.

    Args:
        together: compare every photograph with what the others show of the skin, instead of with the model's
            albedo alone (see `facefit.fit.paint`).
    """
    solution = begin(shared, views)
    paint = no_paint(fitting, observations)
    for _ in range(steps):
        if together:
            paint = paint_from_others(fitting, observations, solution.shared, solution.views)
        solution = step(fitting, observations, paint, solution, settings, photometric)
    return solution


@cache.remembered(static_argnames=("photometric",))
def energies(
    fitting: FittingSurface,
    observations: Observation,
    paint: Float[Array, "N V 3"],
    shared: Shared,
    views: View,
    settings: Settings,
    photometric: bool,
) -> dict[str, Float[Array, " N"]]:
    """Energy of every term in every view."""

    def one(arguments):
        view, seen, others = arguments
        fixed = prepare(fitting, settings, photometric, shared, view, seen, others)
        terms = view_terms(fitting, settings, shared, view, fixed)
        return {name: jnp.sum(term**2) for name, term in terms.items()}

    return jax.lax.map(one, (views, observations, paint))
