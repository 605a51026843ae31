"""Training of the confidence network on image sets, with the encoder frozen (Deng et al. 2019, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
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
from facefit.encoder.networks import Encoder, aggregate
from facefit.encoder.surface import EncoderSurface
from facefit.encoder.training import Report, TrainState


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


def make_set_step(
    encoder: Encoder,
    graph: nnx.GraphDef,
    adam: optax.GradientTransformation,
    size: int,
    views: int,
    rendering: bool,
) -> Callable[[TrainState, EncoderSurface, Weights, Batch], tuple[TrainState, Report]]:
    """The compiled step on the confidence network; the encoder sees the photographs as in prediction.

    The loss is that of single photographs, each with its set's identity and its own expression, pose and
    light; where faces are labelled, also the aggregate's distance from the truth.

    Args:
        encoder: frozen.
        graph: the confidence network's structure.
        views: photographs a set.
        rendering: whether the terms that compare pictures take part.
    """
    encoder_graph, encoder_state = nnx.split(encoder)

    def loss(parameters, statistics, found: Coefficients, features, surface, weights, batch):
        confidence = nnx.merge(graph, parameters, statistics)(features)
        together = found.replace(identity=set_identity(found.identity, confidence, views))
        terms = weak_terms(surface, together, batch, size) | supervised_terms(surface, together, batch)
        if rendering:
            drawn = jax.vmap(draw, in_axes=(None, 0, None))(surface, together, size)
            terms |= drawn_terms(drawn, batch, project_landmarks(surface, together, size))
        return weigh(terms, weights), terms

    @jax.jit
    def step(state: TrainState, frozen, surface: EncoderSurface, weights: Weights, sets: Batch):
        batch = photographs_of(sets)
        outputs, features = nnx.merge(encoder_graph, frozen)(batch.image, batch.dense)
        found = jax.lax.stop_gradient(coefficients(outputs, surface.start))
        features = jax.lax.stop_gradient(features)
        (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.parameters, state.statistics, found, features, surface, weights, batch
        )
        updates, moments = adam.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        finite = jnp.isfinite(total)
        new = state.replace(step=state.step + 1, parameters=parameters, average=parameters, optimizer=moments)
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        return kept, Report(terms, total, optax.tree.norm(gradient), finite)

    return lambda state, surface, weights, sets: step(state, encoder_state, surface, weights, sets)


def set_errors(
    surface: EncoderSurface,
    identity: Float[np.ndarray, "B M I"],
    confidence: Float[np.ndarray, "B M I"],
    truth: Float[np.ndarray, "B I"],
) -> dict[str, float]:
    """Root mean squared error of the aligned frontal face, mm, averaged over sets: of the confidence-weighted
    aggregate, of the plain mean, of single photographs on average, and of the best single one.
    """
    metric = np.asarray(surface.identity_metric, np.float64)

    def error(found):
        difference = np.asarray(found, np.float64) - truth[(slice(None),) + (None,) * (found.ndim - 2)]
        return np.sqrt(np.einsum("...i,ij,...j->...", difference, metric, difference))

    single = error(identity)
    aggregated = (confidence * identity).sum(1) / confidence.sum(1)
    return {
        "aggregate_mm": float(error(aggregated).mean()),
        "mean_mm": float(error(identity.mean(1)).mean()),
        "single_mm": float(single.mean()),
        "best_single_mm": float(single.min(1).mean()),
    }
