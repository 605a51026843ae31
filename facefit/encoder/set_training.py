"""Training of the confidence network on image sets, with the encoder frozen (Deng et al. 2019, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jaxtyping import Array, Float

from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import Coefficients, coefficients
from facefit.encoder.losses import (
    Weights,
    draw,
    drawn_terms,
    project_landmarks,
    supervised_terms,
    weak_terms,
    weigh,
)
from facefit.encoder.networks import Encoder, Features, aggregate
from facefit.encoder.surface import EncoderSurface
from facefit.encoder.training import Report, TrainState


@struct.dataclass
class Encoded:
    """What the frozen encoder makes of N photographs: their coefficients, and what C-Net looks at."""

    found: Coefficients
    features: Features


def photographs_of(sets: Batch) -> Batch:
    """Image sets (B, M, ...) as one batch of photographs (B * M, ...)."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), sets)


def set_identity(
    identity: Float[Array, "N I"], confidence: Float[Array, "N I"], views: int
) -> Float[Array, "N I"]:
    """Each photograph's identity replaced by the aggregate of its set.

    Args:
        views: photographs a set; those of a set follow each other.
    """
    apart = [values.reshape(-1, views, values.shape[-1]) for values in (identity, confidence)]
    return jnp.repeat(aggregate(*apart), views, axis=0)


def make_encode(
    encoder: Encoder, surface: EncoderSurface
) -> Callable[[Float[Array, "N P P 3"], Float[Array, "N 468 3"]], Encoded]:
    """The compiled frozen encoder, which sees photographs as in prediction."""
    graph, frozen = nnx.split(encoder)

    @jax.jit
    def encode(frozen, image, dense):
        outputs, features = nnx.merge(graph, frozen)(image, dense)
        return Encoded(coefficients(outputs, surface.start), features)

    return lambda image, dense: encode(frozen, image, dense)


def make_set_step(
    graph: nnx.GraphDef,
    adam: optax.GradientTransformation,
    size: int,
    views: int,
    rendering: bool,
) -> Callable[[TrainState, EncoderSurface, Weights, Encoded, Batch], tuple[TrainState, Report]]:
    """The compiled step on the confidence network.

    The loss is that of single photographs, each with its set's identity and its own expression, pose and
    light; where faces are labelled, also the aggregate's distance from the truth.

    Args:
        graph: the confidence network's structure.
        size: of the crops, pixels. views: photographs a set; those of a set follow each other in a batch.
        rendering: whether the terms that compare pictures take part; without them no pictures are looked at.
    """

    def loss(parameters, statistics, encoded: Encoded, surface, weights, batch):
        confidence = nnx.merge(graph, parameters, statistics)(encoded.features)
        found = encoded.found
        together = found.replace(identity=set_identity(found.identity, confidence, views))
        terms = weak_terms(surface, together, batch, size) | supervised_terms(surface, together, batch)
        if rendering:
            drawn = jax.vmap(draw, in_axes=(None, 0, None))(surface, together, size)
            terms |= drawn_terms(drawn, batch, project_landmarks(surface, together, size))
        return weigh(terms, weights), terms

    @jax.jit
    def step(state: TrainState, surface: EncoderSurface, weights: Weights, encoded: Encoded, batch: Batch):
        (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.parameters, state.statistics, encoded, surface, weights, batch
        )
        updates, moments = adam.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        finite = jnp.isfinite(total)
        new = state.replace(step=state.step + 1, parameters=parameters, average=parameters, optimizer=moments)
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        return kept, Report(terms, total, optax.tree.norm(gradient), finite)

    return step


def set_errors(
    surface: EncoderSurface,
    identity: Sequence[Float[np.ndarray, "M I"]],
    confidence: Sequence[Float[np.ndarray, "M I"]],
    truth: Float[np.ndarray, "B I"],
) -> dict[str, float]:
    """Root mean squared error of the aligned frontal face, mm, averaged over sets: of the confidence-weighted
    aggregate, of the plain mean, of single photographs on average, of the best single one, and of the mean
    face.

    Args:
        identity, confidence: of each set's photographs, of which sets may have different numbers.
    """
    metric = np.asarray(surface.identity_metric, np.float64)

    def error(found, true):
        difference = np.asarray(found, np.float64) - true
        return np.sqrt(np.einsum("...i,ij,...j->...", difference, metric, difference))

    rows = []
    for found, trust, true in zip(identity, confidence, truth, strict=True):
        single = error(found, true)
        aggregated = (trust * found).sum(0) / trust.sum(0)
        rows.append(
            [
                error(aggregated, true),
                error(found.mean(0), true),
                single.mean(),
                single.min(),
                error(0 * true, true),
            ]
        )
    names = ("aggregate_mm", "mean_mm", "single_mm", "best_single_mm", "mean_face_mm")
    return dict(zip(names, np.mean(rows, 0).tolist(), strict=True))
