"""From a model's coefficients to vertices, albedo and points on the surface: pure functions of arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.linear import linear_map
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

from facefit.model.records import FaceModel, SurfacePoints


@jax.custom_jvp
def combination(coefficients: Float[Array, " I"], basis: Float[Array, "I *shape"]) -> Float[Array, "*shape"]:
    """The sum of the basis' elements, each times its coefficient; differentiable in both, in both modes.

    JAX transposes this product to one that XLA's CPU backend computes seven times slower than the product
    itself; its transpose by the coefficients is therefore written out.
    """
    return jnp.tensordot(coefficients, basis, axes=1)


def _combined(residuals, operands):
    return (jnp.tensordot(operands[0], residuals[0], axes=1),)


def _projected(residuals, cotangents):
    return (jnp.tensordot(residuals[0], cotangents[0], axes=cotangents[0].ndim),)


def _combination_jvp(primals, tangents):
    coefficients, basis = primals
    result = combination(coefficients, basis)
    tangent = jnp.zeros_like(result)
    if not isinstance(tangents[0], SymbolicZero):
        (tangent,) = linear_map(_combined, _projected, (basis,), (tangents[0],))
    if not isinstance(tangents[1], SymbolicZero):
        tangent = tangent + jnp.tensordot(coefficients, tangents[1], axes=1)
    return result, tangent


combination.defjvp(_combination_jvp, symbolic_zeros=True)


def vertices(
    model: FaceModel, identity: Float[Array, " I"], expression: Float[Array, " E"]
) -> Float[Array, "V 3"]:
    """Vertices in the model frame, millimetres."""
    return (
        model.mean
        + combination(identity, model.identity_basis)
        + combination(expression, model.expression_basis)
    )


def albedo(model: FaceModel, coefficients: Float[Array, " A"]) -> Float[Array, "V 3"]:
    """Albedo of every vertex, linear RGB. Not clipped: that would stop gradients leading back into range."""
    return model.albedo_mean + combination(coefficients, model.albedo_basis)


def surface_points(
    values: Float[Array, "V C"], faces: Int[Array, "F 3"], points: SurfacePoints
) -> Float[Array, "L C"]:
    """Values of the vertices (positions, colours, ...) interpolated at points of the surface."""
    return jnp.einsum("lk,lkc->lc", points.barycentric, values[faces[points.face]])


def at_points(model: FaceModel, points: SurfacePoints) -> FaceModel:
    """The model restricted to a few points of its surface: mean and bases at those points, no faces.

    `vertices` of the result are `surface_points` of the model's vertices, at a hundredth of the cost. Runs on
    the host: once per model, its operations would take longer to compile than to do.
    """
    corner, weights = np.asarray(model.faces)[np.asarray(points.face)], np.asarray(points.barycentric)

    def pick(values):
        picked = np.einsum("lk,...lkc->...lc", weights, np.asarray(values)[..., corner, :])
        return jnp.asarray(picked, jnp.float32)

    none = SurfacePoints(jnp.zeros((0,), jnp.int32), jnp.zeros((0, 3), jnp.float32))
    return model.replace(
        mean=pick(model.mean),
        identity_basis=pick(model.identity_basis),
        expression_basis=pick(model.expression_basis),
        albedo_mean=pick(model.albedo_mean),
        albedo_basis=pick(model.albedo_basis),
        faces=jnp.zeros((0, 3), jnp.int32),
        uv_faces=jnp.zeros((0, 3), jnp.int32),
        landmarks68=none,
        landmarks468=none,
        regions={},
    )


def crop(model: FaceModel, keep: np.ndarray) -> FaceModel:
    """The part of a model whose triangles have all corners in `keep`; coefficients mean the same as before.

    Runs on the host, once per model. Landmarks whose triangle is cut away move to the kept triangle with the
    nearest centre (such landmarks should not be used; keep them by choosing `keep` wisely).

    Args:
        model: any model.
        keep: boolean, (V,).
    """
    faces = np.asarray(model.faces)
    kept_faces = np.flatnonzero(np.asarray(keep)[faces].all(axis=1))
    used = np.unique(faces[kept_faces])
    new_vertex = np.full(len(keep), -1, np.int32)
    new_vertex[used] = np.arange(len(used), dtype=np.int32)
    new_face = np.full(len(faces), -1, np.int32)
    new_face[kept_faces] = np.arange(len(kept_faces), dtype=np.int32)
    mean = np.asarray(model.mean)
    centres = mean[faces].mean(axis=1)

    def move(points: SurfacePoints) -> SurfacePoints:
        face = np.asarray(points.face)
        moved = new_face[face]
        for row in np.flatnonzero(moved < 0):
            offsets = centres[kept_faces] - centres[face[row]]
            moved[row] = np.argmin((offsets**2).sum(axis=1))
        return SurfacePoints(jnp.asarray(moved, jnp.int32), points.barycentric)

    def rows(values):
        return jnp.asarray(np.asarray(values)[..., used, :])

    return model.replace(
        mean=rows(model.mean),
        identity_basis=rows(model.identity_basis),
        expression_basis=rows(model.expression_basis),
        albedo_mean=rows(model.albedo_mean),
        albedo_basis=rows(model.albedo_basis),
        faces=jnp.asarray(new_vertex[faces[kept_faces]], jnp.int32),
        uv_faces=jnp.asarray(np.asarray(model.uv_faces)[kept_faces], jnp.int32),
        landmarks68=move(model.landmarks68),
        landmarks468=move(model.landmarks468),
        regions=jax.tree.map(lambda region: jnp.asarray(np.asarray(region)[used]), model.regions),
    )
