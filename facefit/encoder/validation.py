"""What a network is worth, measured on faces whose truth is known and on photographs with landmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import Coefficients
from facefit.encoder.losses import draw, project_landmarks
from facefit.encoder.surface import EncoderSurface
from facefit.energy.identity_feature import cosine_similarity
from facefit.energy.photometric import photometric_loss
from facefit.metrics import nme_box
from facefit.model import FaceModel
from facefit.model.registration import similarity

# Drawn skin of less than so many pixels says nothing of a photograph's colours.
_LEAST_PIXELS = 16.0


def aligned_neutral(
    model: FaceModel,
    frontal: np.ndarray,
    predicted: Float[np.ndarray, " I"],
    truth: Float[np.ndarray, " I"],
) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, "V 3"], Float[np.ndarray, " N"]]:
    """Two heads without expression, millimetres: the predicted one, moved by the similarity that brings its
    frontal face closest to the true one's; the true one; and the distances of their frontal vertices.

    Args:
        frontal: vertices that count (see `EncoderSurface`).
    """
    mean, basis = np.asarray(model.mean), np.asarray(model.identity_basis)
    found, wanted = (mean + np.tensordot(c, basis, axes=1) for c in (predicted, truth))
    moved, distances = _distances(found, wanted, frontal)
    return moved, wanted, distances


def neutral_errors(
    model: FaceModel,
    frontal: np.ndarray,
    identity: Float[np.ndarray, "B I"],
    truth: Float[np.ndarray, "B I"],
) -> Float[np.ndarray, " B"]:
    """Mean distance of matching points of the frontal face without expression after the best similarity, mm.

    Args:
        frontal: vertices that count (see `EncoderSurface`).
    """
    mean, basis = np.asarray(model.mean)[frontal], np.asarray(model.identity_basis)[:, frontal]
    found, wanted = (mean + np.tensordot(rows, basis, axes=1) for rows in (identity, truth))
    return np.array([_distances(*pair)[1].mean() for pair in zip(found, wanted)])


def _distances(found, wanted, frontal=slice(None)):
    """`found` moved by the similarity that fits its frontal vertices, and their distances then."""
    moved = similarity(found[frontal], wanted[frontal])(found)
    return moved, np.linalg.norm(moved[frontal] - wanted[frontal], axis=1)


@jax.jit(static_argnums=3)
def _drawn_figures(surface: EncoderSurface, found: Coefficients, batch: Batch, size: int):
    """Pictures clipped to [0, 1], and for every photograph the photometric loss and its pixels of skin."""
    drawn = jax.vmap(draw, in_axes=(None, 0, None))(surface, found, size)
    weight = batch.skin * drawn.trust
    distance = jax.vmap(photometric_loss)(drawn.image, batch.image, weight)
    return jnp.clip(drawn.image, 0.0, 1.0), distance, weight.sum((-1, -2))


@jax.jit
def _albedo_errors(surface: EncoderSurface, albedo: Float[Array, "B A"], truth: Float[Array, "B A"]):
    """Distance of colours over the skin, root mean square, linear RGB, (B,)."""
    difference = albedo - truth
    square = jnp.einsum("bi,ij,bj->b", difference, surface.albedo_metric, difference)
    return jnp.sqrt(jnp.maximum(square, 0.0))


def evaluate(
    model: FaceModel,
    surface: EncoderSurface,
    predict: Callable[[np.ndarray, np.ndarray], Coefficients],
    batches: Iterable[Batch],
    size: int,
    rendering: bool = False,
    describe: Callable[[Array, Array], Array] | None = None,
) -> dict[str, float]:
    """Figures over a data set's photographs; those that need a truth only where one is known.

    Args:
        rendering: draw the predictions and compare pictures too, which takes longer.
        describe: (images, landmarks) -> identity features, for the comparison of pictures.

    Returns:
        neutral_mm: mean error of the predicted faces, and of the mean face, mean_face_mm; improvement: one
        less their ratio; albedo_rms: distance of the skin's colours from the known ones, linear RGB;
        nme_percent: mean distance of the landmarks in percent of their box; photographs: how many were seen.
        With `rendering` photometric: mean distance of colours over the skin that is drawn, sRGB, and
        identity_similarity: mean cosine of the identity features of photograph and drawing.
    """
    frontal = np.asarray(surface.frontal)
    neutral, of_mean, albedo, nme, colors, alike, count = [], [], [], [], [], [], 0
    for batch in batches:
        found = predict(batch.image, batch.dense)
        projected = np.asarray(project_landmarks(surface, found, size))
        for points, truth, weight in zip(projected, batch.landmarks, batch.landmark_weight):
            seen = np.asarray(weight) > 0
            if not seen.any():
                continue
            truth = np.asarray(truth)[seen]
            nme.append(nme_box(points[seen], truth, (*truth.min(0), *truth.max(0))))
        known = np.asarray(batch.labelled)
        if known.any():
            truth = np.asarray(batch.identity)[known]
            neutral.append(neutral_errors(model, frontal, np.asarray(found.identity)[known], truth))
            of_mean.append(neutral_errors(model, frontal, np.zeros_like(truth), truth))
            albedo.append(np.asarray(_albedo_errors(surface, found.albedo, batch.albedo))[known])
        if rendering:
            drawn, distance, pixels = _drawn_figures(surface, found, batch, size)
            colors.append(np.asarray(distance)[np.asarray(pixels) > _LEAST_PIXELS])
            if describe is not None:
                features = describe(drawn, projected), describe(batch.image, batch.landmarks)
                alike.append(np.asarray(cosine_similarity(*features)))
        count += len(known)
    figures = {"photographs": float(count)}
    if nme:
        figures["nme_percent"] = float(np.mean(nme))
    if neutral:
        figures["neutral_mm"] = float(np.concatenate(neutral).mean())
        figures["mean_face_mm"] = float(np.concatenate(of_mean).mean())
        figures["improvement"] = 1.0 - figures["neutral_mm"] / figures["mean_face_mm"]
        figures["albedo_rms"] = float(np.concatenate(albedo).mean())
    for name, values in (("photometric", colors), ("identity_similarity", alike)):
        if values and np.concatenate(values).size:
            figures[name] = float(np.concatenate(values).mean())
    return figures
