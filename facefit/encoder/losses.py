"""The training loss: the terms of `facefit.energy`, evaluated on a batch of predictions and weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from facefit.color import linear_to_srgb_unclipped
from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import EXPRESSION_SIGMA, Coefficients, crop_matrix
from facefit.encoder.surface import EncoderSurface
from facefit.energy.geometry import quadratic_loss
from facefit.energy.landmarks import landmark_loss
from facefit.energy.photometric import photometric_loss
from facefit.energy.priors import coefficient_loss, exposure_loss, light_color_loss, reflectance_loss
from facefit.model import albedo, vertices
from facefit.render import directions_to_camera, project, render, shade, to_camera, vertex_normals

# Standard deviation of a camera's exposure, natural logarithm: what portraits of unknown cameras need.
# Fitting is stricter, since it has to find the light from nothing.
EXPOSURE_LOG_SIGMA = 0.25
# Mean squares over the sphere, where the harmonics are orthogonal: `sh_basis`'s factors, channels summed.
LIGHTING_METRIC = np.diag(np.repeat([1.0] + [4 / 9] * 3 + [1 / 16] * 5, 3)).astype(np.float32)


@struct.dataclass
class Weights:
    """What each term counts. The first six are those of Deng et al. 2019, and their values its constants.

    Attributes:
        photometric, landmarks, identity_feature, coefficients, light_color, reflectance: the paper's.
        exposure: of the mean irradiance about one; 0 in the paper.
        neutral: of the known faces without expression, per mm^2; 0 in the paper, which knows no truth.
        geometry: the same with expression.
        albedo: of the known albedo, per unit of squared linear RGB.
        lighting: of the light that white surfaces of all directions are known to reflect, the same unit.
        points: of the surface points that the network finds, per square of a hundredth of the crop's side.
        random_faces: of `neutral` and half of `geometry` over faces known by their points alone.
    """

    photometric: float = 1.92
    landmarks: float = 1.6e-3
    identity_feature: float = 0.2
    coefficients: float = 3e-4
    light_color: float = 10.0
    reflectance: float = 5.0
    exposure: float = 0.0
    neutral: float = 0.0
    geometry: float = 0.0
    albedo: float = 0.0
    lighting: float = 0.0
    points: float = 0.0
    random_faces: float = 0.0


@struct.dataclass
class Drawn:
    """Predictions as pictures: unclipped sRGB (B, P, P, 3) on black, coverage (B, P, P), and how far a
    pixel's colour can be trusted by the part of the face it shows (B, P, P).
    """

    image: Float[Array, "B P P 3"]
    coverage: Float[Array, "B P P"]
    trust: Float[Array, "B P P"]


def draw(surface: EncoderSurface, found: Coefficients, size: int) -> Drawn:
    """Draws one photograph's prediction (no batch axis) in the crop's camera."""
    model = surface.surface
    points = vertices(model, found.identity, found.expression)
    normals = directions_to_camera(vertex_normals(points, model.faces), found.rotation)
    lit = shade(albedo(model, found.albedo), normals, found.lighting)
    values = jnp.concatenate([lit, surface.photometric[:, None]], -1)
    placed = to_camera(points, found.rotation, found.translation)
    drawn = render(placed, values, model.faces, crop_matrix(size), (size, size))
    trust = jax.lax.stop_gradient(drawn.image[..., 3])
    return Drawn(linear_to_srgb_unclipped(drawn.image[..., :3]), drawn.coverage, trust)


def project_landmarks(surface: EncoderSurface, found: Coefficients, size: int) -> Float[Array, "B 68 2"]:
    """The predicted iBUG points, crop pixels."""

    def one(found: Coefficients):
        points = vertices(surface.landmarks, found.identity, found.expression)
        return project(to_camera(points, found.rotation, found.translation), crop_matrix(size))

    return jax.vmap(one)(found)


def weak_terms(
    surface: EncoderSurface, found: Coefficients, batch: Batch, size: int
) -> dict[str, Float[Array, ""]]:
    """The terms that need no drawing, not yet weighed."""
    colors = jax.vmap(lambda one: albedo(surface.surface, one))(found.albedo)
    blendshape = surface.surface.expression_is_blendshape
    return {
        "landmarks": landmark_loss(
            project_landmarks(surface, found, size), batch.landmarks, batch.landmark_weight, size
        ),
        "coefficients": coefficient_loss(
            found.identity, found.expression, found.albedo, EXPRESSION_SIGMA, blendshape
        ),
        "light_color": light_color_loss(found.lighting),
        "reflectance": reflectance_loss(colors, surface.skin),
        "exposure": exposure_loss(found.lighting, EXPOSURE_LOG_SIGMA),
    }


def supervised_terms(
    surface: EncoderSurface, found: Coefficients, batch: Batch
) -> dict[str, Float[Array, ""]]:
    """The terms of samples whose truth is known."""
    known = batch.labelled.astype(jnp.float32)
    light = found.lighting - batch.lighting
    return _shape_terms(surface, found, batch.identity, batch.expression, known) | {
        "albedo": quadratic_loss(found.albedo - batch.albedo, surface.albedo_metric, known),
        "lighting": quadratic_loss(light.reshape(len(light), -1), LIGHTING_METRIC, known),
    }


def _shape_terms(
    surface: EncoderSurface, found: Coefficients, identity, expression, known: Float[Array, " B"]
) -> dict[str, Float[Array, ""]]:
    off = found.identity - identity
    both = jnp.concatenate([off, found.expression - expression], -1)
    return {
        "neutral": quadratic_loss(off, surface.identity_metric, known),
        "geometry": quadratic_loss(both, surface.geometry_metric, known),
    }


def point_error(
    rounds: Sequence[Float[Array, "B 468 2"]], batch: Batch, size: int
) -> tuple[Float[Array, ""], Float[Array, "B 468 2"]]:
    """How far the surface points found are off, the mean of all rounds, and the last round's offsets, pixels;
    zeros where the truth is not known.

    Small offsets count by their square, in hundredths of the crop's side, those beyond one hundredth by their
    length (Charbonnier et al. 1997): points out of sight are off by much, and nothing teaches better.
    """
    known = batch.labelled.astype(jnp.float32)
    terms = []
    for points in rounds:
        off = known[:, None, None] * (points - batch.surface468)
        squared = jnp.sum((100.0 / size * off) ** 2, -1)
        each = jnp.mean(2.0 * (jnp.sqrt(1.0 + squared) - 1.0), -1)
        terms.append(jnp.sum(each) / jnp.maximum(jnp.sum(known), 1.0))
    return sum(terms) / len(terms), off


def random_faces_term(
    surface: EncoderSurface,
    found: Coefficients,
    identity: Float[Array, "B I"],
    expression: Float[Array, "B E"],
) -> Float[Array, ""]:
    """How far faces concluded from points alone are off, mm^2: without expression, and half as much with."""
    terms = _shape_terms(surface, found, identity, expression, jnp.ones(len(identity)))
    return terms["neutral"] + 0.5 * terms["geometry"]


def drawn_terms(
    drawn: Drawn,
    batch: Batch,
    projected: Float[Array, "B 68 2"],
    identity_feature: Callable | None = None,
) -> dict[str, Float[Array, ""]]:
    """The terms that compare pictures.

    Args:
        identity_feature: (drawn image, projected landmarks, photograph, its landmarks) -> loss; None leaves
            the term out.
    """
    terms = {"photometric": photometric_loss(drawn.image, batch.image, batch.skin * drawn.trust)}
    if identity_feature is not None:
        terms["identity_feature"] = identity_feature(
            jnp.clip(drawn.image, 0.0, 1.0), projected, batch.image, batch.landmarks
        )
    return terms


def weigh(terms: dict[str, Float[Array, ""]], weights: Weights) -> Float[Array, ""]:
    """The weighted sum of the terms that are there."""
    return sum(getattr(weights, name) * value for name, value in sorted(terms.items()))
