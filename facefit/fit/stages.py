"""The two stages of a fit as pure jitted functions: landmarks alone, then landmarks and colours together."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from facefit_kernels import rasterize
from flax import struct
from jaxtyping import Array, Float

from facefit.energy.landmarks import (
    Outline,
    facing,
    landmark_residuals,
    match_outline,
    outline_residuals,
)
from facefit.energy.photometric import PixelSample, photometric_residuals, rendered_colors
from facefit.energy.priors import distance_residual, expression_residuals, lighting_residuals
from facefit.fit.observation import Observation
from facefit.fit.settings import Settings
from facefit.fit.solver import Solution, levenberg_marquardt
from facefit.fit.state import Shared, View, camera
from facefit.fit.surface import JAW68, OVAL468, FittingSurface
from facefit.model import FaceModel, albedo, vertices
from facefit.render.camera import clip_coordinates, directions_to_camera, intrinsics, project, to_camera
from facefit.render.mesh import vertex_normals


@struct.dataclass
class Prepared:
    """What is held fixed during one solver step, for one view.

    Attributes:
        observation: the view's observation.
        facing: of every landmark's surface point, (536,).
        outline468, outline68: matches of the oval and the jaw.
        normals: unit vertex normals in the camera frame, (V, 3).
        sample: pixels with their triangles; None in the landmark stage.
    """

    observation: Observation
    facing: Float[Array, " L"]
    outline468: Outline
    outline68: Outline
    normals: Float[Array, "V 3"]
    sample: PixelSample | None


def _camera_vertices(model: FaceModel, shared: Shared, view: View, translation) -> Float[Array, "V 3"]:
    return to_camera(vertices(model, shared.identity, view.expression), view.rotation, translation)


def _prepare(
    fitting: FittingSurface, settings: Settings, photometric: bool, shared: Shared, view: View, seen: Observation
) -> Prepared:
    model = fitting.surface
    focal, translation = camera(shared, view, seen)
    matrix = intrinsics(focal, seen.principal)
    points = vertices(model, shared.identity, view.expression)
    normals = directions_to_camera(vertex_normals(points, model.faces), view.rotation)
    placed = to_camera(points, view.rotation, translation)
    landmark_facing = facing(
        placed[fitting.landmark_corner].mean(1), normals[fitting.landmark_corner].mean(1)
    )
    oval, jaw = jnp.asarray(OVAL468), jnp.asarray(JAW68)
    candidates = placed[fitting.outline]
    match = functools.partial(
        match_outline, candidates, normals[fitting.outline], project(candidates, matrix), unit=seen.unit
    )
    sample = None
    if photometric:
        sample = _sample(fitting, settings, placed, normals, matrix, seen)
    return Prepared(
        observation=seen,
        facing=landmark_facing,
        outline468=match(seen.points468[oval, :2], landmark_facing[oval]),
        outline68=match(seen.points68[jaw], landmark_facing[468 + jaw]),
        normals=normals,
        sample=sample,
    )


def _sample(
    fitting: FittingSurface, settings: Settings, placed, normals, matrix, seen: Observation
) -> PixelSample:
    """Rasterizes the face and picks the pixels to be compared."""
    model, size = fitting.surface, settings.crop_px
    fragments = rasterize(clip_coordinates(placed, matrix, (size, size)), model.faces, (size, size))
    face = fragments.face_index[:, :, 0]
    corner = model.faces[jnp.maximum(face, 0)]
    weight = jnp.einsum("hwk,hwk->hw", fragments.barycentric[:, :, 0], fitting.photometric[corner])
    # The colour of a surface seen edge-on is the least certain: less light, coarse normals, hair, blur.
    cosine = facing(placed, normals)
    weight = weight * jnp.clip(2.5 * jnp.mean(cosine[corner], -1), 0.0, 1.0) * seen.weight
    weight = jnp.where(face >= 0, weight, 0.0)
    rows, columns = jnp.nonzero(weight > 0.02, size=settings.pixels, fill_value=0)
    chosen = weight[rows, columns]
    # Unused places repeat pixel (0, 0); its own weight counts only if it was chosen itself.
    chosen = jnp.where(jnp.arange(settings.pixels) < jnp.sum(weight > 0.02), chosen, 0.0)
    total = jnp.sum(chosen)
    # A face that is mostly hidden has fewer independent pixels, not heavier ones.
    share = settings.photometric_count / jnp.maximum(total, 0.1 * size * size)
    center = jnp.stack([columns + 0.5, rows + 0.5], -1).astype(jnp.float32)
    return PixelSample(
        corner=corner[rows, columns],
        ray=center - seen.principal,
        color=seen.image[rows, columns],
        weight=chosen * share,
    )


def _landmark_terms(
    fitting: FittingSurface, settings: Settings, shared: Shared, view: View, fixed: Prepared
) -> dict[str, Array]:
    seen = fixed.observation
    focal, translation = camera(shared, view, seen)
    matrix = intrinsics(focal, seen.principal)
    placed = _camera_vertices(fitting.landmarks, shared, view, translation)
    projected = project(placed, matrix)
    # A point on the far side of the face is where the network imagines it.
    seen_share = 0.1 + 0.9 * jnp.clip(2.0 * fixed.facing + 0.5, 0.0, 1.0)
    oval, jaw = jnp.asarray(OVAL468), jnp.asarray(JAW68)
    dense_sigma = jnp.sqrt(settings.dense_sigma**2 + fitting.sigma468**2) * seen.unit
    dense_weight = seen_share[:468] * (settings.dense_count / 468.0) * seen.weight468
    dense_weight = dense_weight.at[oval].multiply(1.0 - fixed.outline468.weight)
    sparse_sigma = jnp.full((68,), settings.sparse_sigma) * seen.unit
    sparse_weight = seen_share[468:] * (settings.sparse_count / 68.0) * seen.weight68
    sparse_weight = sparse_weight.at[jaw].multiply(1.0 - fixed.outline68.weight)

    part = fitting.surface
    expression = view.expression

    def outline(match: Outline, observed, weight):
        index = fitting.outline[match.vertex]
        points = (
            part.mean[index]
            + jnp.tensordot(shared.identity, part.identity_basis[:, index], axes=1)
            + jnp.tensordot(expression, part.expression_basis[:, index], axes=1)
        )
        pixels = project(to_camera(points, view.rotation, translation), matrix)
        sigma = jnp.full(observed.shape[:1], settings.outline_sigma) * seen.unit
        count = settings.outline_count / observed.shape[0]
        return outline_residuals(pixels, observed, match, sigma, jnp.full(observed.shape[:1], count) * weight, settings.landmark_outlier)

    terms = {
        "landmarks_dense": landmark_residuals(
            projected[:468], seen.points468[:, :2], dense_sigma, dense_weight, settings.landmark_outlier
        ),
        "landmarks_sparse": landmark_residuals(
            projected[468:], seen.points68, sparse_sigma, sparse_weight, settings.landmark_outlier
        ),
        "outline_dense": outline(fixed.outline468, seen.points468[oval, :2], seen.weight468),
        "outline_sparse": outline(fixed.outline68, seen.points68[jaw], seen.weight68),
    }
    if settings.depth_count > 0:
        depth = placed[:468, 2] * jnp.exp(view.log_scale)
        weight = dense_weight / jnp.maximum(jnp.sum(dense_weight), 1e-6)
        difference = depth - seen.points468[:, 2]
        difference = difference - jnp.sum(weight * difference)
        sigma = jnp.full((468,), settings.depth_sigma) * seen.unit
        terms["landmarks_depth"] = landmark_residuals(
            difference[:, None], jnp.zeros((468, 1)), sigma,
            jnp.full((468,), settings.depth_count / 468.0) * seen.weight468, settings.landmark_outlier,
        )
    return terms


def _view_priors(fitting: FittingSurface, settings: Settings, shared: Shared, view: View, seen: Observation) -> dict:
    _, translation = camera(shared, view, seen)
    log_focal = shared.log_focal[seen.focal_group]
    return {
        "prior_expression": expression_residuals(
            view.expression, settings.expression_sigma, fitting.surface.expression_is_blendshape
        ),
        "prior_camera": jnp.stack(
            [
                distance_residual(translation[2], settings.distance_mm, settings.distance_log_sigma),
                (log_focal - seen.log_focal) / seen.log_focal_sigma,
            ]
        ),
        "prior_lighting": lighting_residuals(
            view.lighting, settings.lighting_sigma, settings.lighting_color_sigma
        ),
    }


def view_terms(
    fitting: FittingSurface, settings: Settings, shared: Shared, view: View, fixed: Prepared
) -> dict[str, Array]:
    """Every residual of one photograph by name; the photometric one where pixels were sampled."""
    terms = _landmark_terms(fitting, settings, shared, view, fixed)
    terms |= _view_priors(fitting, settings, shared, view, fixed.observation)
    if fixed.sample is not None:
        focal, translation = camera(shared, view, fixed.observation)
        placed = _camera_vertices(fitting.surface, shared, view, translation)
        colors = rendered_colors(
            placed, albedo(fitting.surface, shared.albedo), fixed.normals, view.lighting, focal, fixed.sample
        )
        terms["photometric"] = photometric_residuals(
            colors, fixed.sample, settings.photometric_sigma, settings.photometric_outlier
        )
    return terms


def _flatten(terms: dict[str, Array]) -> Float[Array, " R"]:
    return jnp.concatenate([terms[name].ravel() for name in sorted(terms)])


def _shared_residuals(shared: Shared) -> Float[Array, " Q"]:
    # Focal lengths get their priors from the views; a tiny pull keeps unused groups determined.
    return jnp.concatenate([shared.identity, shared.albedo, 1e-3 * shared.log_focal])


@functools.partial(jax.jit, static_argnames=("settings", "photometric", "steps"))
def run_stage(
    fitting: FittingSurface,
    observations: Observation,
    shared: Shared,
    views: View,
    settings: Settings,
    photometric: bool,
    steps: int,
) -> Solution:
    """Runs one stage from the given parameters. Compiled once per model size, number of views and settings."""

    def residuals(shared, view, fixed):
        return _flatten(view_terms(fitting, settings, shared, view, fixed))

    def prepare(shared, view, seen):
        return _prepare(fitting, settings, photometric, shared, view, seen)

    return levenberg_marquardt(residuals, _shared_residuals, shared, views, prepare, observations, steps)


@functools.partial(jax.jit, static_argnames=("settings", "photometric"))
def energies(
    fitting: FittingSurface,
    observations: Observation,
    shared: Shared,
    views: View,
    settings: Settings,
    photometric: bool,
) -> dict[str, Float[Array, " N"]]:
    """Energy of every term in every view."""

    def one(arguments):
        view, seen = arguments
        fixed = _prepare(fitting, settings, photometric, shared, view, seen)
        terms = view_terms(fitting, settings, shared, view, fixed)
        return {name: jnp.sum(term**2) for name, term in terms.items()}

    return jax.lax.map(one, (views, observations))
