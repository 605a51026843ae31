"""Photographs of one person to coefficients in one forward pass over them and their mirror images, identity
aggregated over all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from facefit.encoder.coefficients import Coefficients
from facefit.encoder.landmarks import ibug_points
from facefit.encoder.looks import look
from facefit.encoder.losses import project_landmarks
from facefit.encoder.networks import aggregate
from facefit.encoder.surface import EncoderSurface, encoder_surface
from facefit.encoder.weights import TrainedEncoder
from facefit.errors import InputError
from facefit.model import FaceModel
from facefit.model.derived import kept
from facefit.photo import Photograph
from facefit.photo.cropping import warp
from facefit.photo.face_crop import CROP_FOCAL, network_crop


@dataclasses.dataclass(frozen=True)
class PredictedView:
    """One photograph's prediction, in its pixels (the first one's centre at (0.5, 0.5)).

    Attributes:
        expression: (E,). rotation: axis-angle, camera frame, (3,). lighting: (9, 3).
        translation: of the model's origin in the crop's camera frame, millimetres, (3,).
        focal_px, center: of the crop's camera, whose principal point is the crop's middle: a convention of
            the network (see `CROP_FOCAL`), not what the photograph was taken with.
        landmarks68: the projected iBUG points, with the aggregated identity, (68, 2).
        detected68: those found in the photograph, from the dense points, (68, 2).
    """

    expression: Float[np.ndarray, " E"]
    rotation: Float[np.ndarray, "3"]
    lighting: Float[np.ndarray, "9 3"]
    translation: Float[np.ndarray, "3"]
    focal_px: float
    center: Float[np.ndarray, "2"]
    landmarks68: Float[np.ndarray, "68 2"]
    detected68: Float[np.ndarray, "68 2"]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One person's prediction.

    Attributes:
        identity, albedo: of the person, (I,), (A,).
        confidence: of every photograph's identity coefficients, (N, I); equal where no C-Net was trained.
        views: one a photograph.
    """

    identity: Float[np.ndarray, " I"]
    albedo: Float[np.ndarray, " A"]
    confidence: Float[np.ndarray, "N I"]
    views: tuple[PredictedView, ...]


def predict(photographs: Sequence[Photograph], model: FaceModel, trained: TrainedEncoder) -> Prediction:
    """Predicts one person's face from photographs.

    Raises:
        InputError: no photograph, one without dense points, or the encoder was trained for another model.
    """
    if not photographs:
        raise InputError("there is no photograph to predict from: give at least one")
    check_model(model, trained)
    size = trained.size
    for photograph in photographs:
        if photograph.landmarks468 is None:
            raise InputError(
                f"{photograph.path}: the encoder needs the detector's points, and it sees no face where the "
                "landmarks are. Leave the landmarks away, or fit from landmarks."
            )
    points = [ibug_points(photograph.landmarks468) for photograph in photographs]
    matrices = [network_crop(marks, size) for marks in points]
    crops = [warp(photograph.pixels, matrix, size) for photograph, matrix in zip(photographs, matrices)]
    images = np.stack(crops).astype(np.float32) / 255.0
    in_crop = np.stack([(p.landmarks468 - [*m[:2, 2], 0.0]) / m[0, 0] for p, m in zip(photographs, matrices)])
    surface = _surface_of(model)
    predicted = predict_crops(trained, surface, images, in_crop.astype(np.float32))
    found, confidence, projected = jax.tree.map(np.asarray, predicted)
    views = []
    for k, matrix in enumerate(matrices):
        scale = float(matrix[0, 0])
        views.append(
            PredictedView(
                expression=found.expression[k],
                rotation=found.rotation[k],
                lighting=found.lighting[k],
                translation=found.translation[k],
                focal_px=CROP_FOCAL * size * scale,
                center=(scale * size / 2 + matrix[:2, 2]).astype(np.float32),
                landmarks68=(projected[k] * scale + matrix[:2, 2]).astype(np.float32),
                detected68=points[k],
            )
        )
    return Prediction(found.identity[0], found.albedo[0], confidence, tuple(views))


# Takes longer to gather than a prediction.
_surface_of = kept(encoder_surface)


def predict_crops(
    trained: TrainedEncoder,
    surface: EncoderSurface,
    images: Float[np.ndarray, "N P P 3"],
    dense: Float[np.ndarray, "N 468 3"],
) -> tuple[Coefficients, Float[Array, "N I"], Float[Array, "N 68 2"]]:
    """Coefficients of one person's crops: identity the aggregate of all, albedo their mean, both repeated;
    the confidences; and the projected landmarks, crop pixels.

    Args:
        images: sRGB in [0, 1].
        dense: Face Mesh points, crop pixels.
    """
    graph, state = nnx.split((trained.encoder, trained.confidence))
    return _forward(graph, state, surface, images, dense, trained.size)


@jax.jit(static_argnums=(0, 5))
def _forward(graph, state, surface, images, dense, size):
    encoder, network = nnx.merge(graph, state)
    found, confidence = look(encoder, network, surface, images, dense)
    one = found.replace(
        identity=jax.numpy.broadcast_to(aggregate(found.identity, confidence), found.identity.shape),
        albedo=jax.numpy.broadcast_to(found.albedo.mean(0), found.albedo.shape),
    )
    return one, confidence, project_landmarks(surface, one, size)


def check_model(model: FaceModel, trained: TrainedEncoder) -> None:
    """Refuses a model that the encoder was not trained for.

    Raises:
        InputError: its name or its numbers of coefficients are others.
    """
    heads = trained.encoder.heads
    for name, basis in (
        ("identity", model.identity_basis),
        ("expression", model.expression_basis),
        ("albedo", model.albedo_basis),
    ):
        wanted = heads[name].out_features
        if model.name != trained.model or len(basis) != wanted:
            raise InputError(
                f"the encoder predicts coefficients of the model {trained.model}, and the model given is "
                f"{model.name}, with {len(basis)} of {wanted} {name} coefficients. Use the encoder's model, "
                "train an encoder for yours (experiments/train_encoder.py), or fit from landmarks."
            )
