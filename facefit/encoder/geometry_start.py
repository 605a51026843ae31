"""A start for the encoder that is told landmarks: random faces' landmarks, without pictures, by the million.

What landmarks tell of a face is a matter of the model alone. Learned from sampled geometry it costs minutes,
and training on pictures begins where the landmarks' knowledge ends.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jaxtyping import Array, Float

from facefit.encoder.coefficients import EXPRESSION_SIGMA, coefficients
from facefit.encoder.losses import project_landmarks
from facefit.encoder.networks import Encoder, outputs_of_landmarks
from facefit.encoder.surface import EncoderSurface
from facefit.encoder.training import disturbed
from facefit.energy.geometry import quadratic_loss
from facefit.energy.landmarks import landmark_loss
from facefit.energy.priors import coefficient_loss
from facefit.model import FaceModel, vertices
from facefit.photo.face_crop import FACE_SHARE
from facefit.render import to_camera
from facefit.synthesis.expressions import random_distance, random_expression, random_rotation

BATCH = 128
_POOL = 12000  # expressions, poses and distances, drawn once and combined with ever new identities
_RATE = 1e-3
# Scale, turn and shift of the crop that training's augmentation makes.
_SCALE, _TURN, _MOVE = 0.1, np.radians(10.0), 10.0 / 224.0


@struct.dataclass
class Pool:
    """Random expressions (N, E), axis-angle rotations (N, 3), and camera distances in millimetres (N,)."""

    expression: Float[Array, "N E"]
    rotation: Float[Array, "N 3"]
    distance: Float[Array, " N"]


def random_pool(model: FaceModel, count: int, seed: int) -> Pool:
    """As synthetic photographs have them."""
    rng = np.random.default_rng(seed)
    names, blendshape = model.expression_names, model.expression_is_blendshape
    number = model.expression_basis.shape[0]
    rows = [
        (random_expression(rng, names, number, blendshape), random_rotation(rng), random_distance(rng))
        for _ in range(count)
    ]
    return Pool(*(jnp.asarray(np.stack(part), jnp.float32) for part in zip(*rows)))


def random_landmarks(
    surface: EncoderSurface, pool: Pool, key: Array, size: int
) -> tuple[Float[Array, "B I"], Float[Array, "B E"], Float[Array, "B 68 2"]]:
    """Identities, expressions and what their landmarks look like in crops as training cuts them, pixels."""
    keys = jax.random.split(key, 5)
    identities = surface.landmarks.identity_basis.shape[0]
    identity = jax.random.normal(keys[0], (BATCH, identities))
    chosen = jax.random.randint(keys[1], (BATCH,), 0, pool.distance.shape[0])
    expression, rotation, distance = jax.tree.map(lambda leaf: leaf[chosen], jax.tree.leaves(pool))
    scale = 1.0 + jax.random.uniform(keys[2], (BATCH,), minval=-_SCALE, maxval=_SCALE)
    turn = jax.random.uniform(keys[3], (BATCH,), minval=-_TURN, maxval=_TURN)
    move = size * jax.random.uniform(keys[4], (BATCH, 2), minval=-_MOVE, maxval=_MOVE)

    def one(identity, expression, rotation, distance, scale, turn, move):
        points = vertices(surface.landmarks, identity, expression)
        placed = to_camera(points, rotation, jnp.zeros(3))
        placed = placed - placed.mean(0) + jnp.stack([0.0, 0.0, 1.0]) * distance
        seen = placed[:, :2] / placed[:, 2:]
        low, high = seen.min(0), seen.max(0)
        centred = (seen - (low + high) / 2) * scale * FACE_SHARE * size / jnp.max(high - low)
        cosine, sine = jnp.cos(turn), jnp.sin(turn)
        turned = centred @ jnp.stack([jnp.stack([cosine, sine]), jnp.stack([-sine, cosine])])
        return turned + size / 2 + move

    seen = jax.vmap(one)(identity, expression, rotation, distance, scale, turn, move)
    return identity, expression, seen


def geometry_start(
    encoder: Encoder,
    model: FaceModel,
    surface: EncoderSurface,
    size: int,
    steps: int,
    seed: int,
    show: Callable[[str], None] = lambda sentence: None,
) -> Encoder:
    """Trains the layers over landmarks and the heads on random faces; the backbone stays as it is.

    Args:
        encoder: one with landmarks.
        size: side of the crops, pixels.
        show: told of the progress.
    """
    graph, parameters, rest = nnx.split(encoder, nnx.Param, ...)
    adam = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adam(optax.cosine_decay_schedule(_RATE, max(steps, 1), 0.01))
    )
    blendshape = model.expression_is_blendshape

    def loss(parameters, identity, expression, seen, told, surface):
        found = coefficients(outputs_of_landmarks(nnx.merge(graph, parameters, rest), told), surface.start)
        known = jnp.ones((BATCH,))
        both = jnp.concatenate([found.identity - identity, found.expression - expression], -1)
        neutral = quadratic_loss(found.identity - identity, surface.identity_metric, known)
        geometry = quadratic_loss(both, surface.geometry_metric, known)
        weight = jnp.ones((BATCH, 68))
        points = landmark_loss(project_landmarks(surface, found, size), seen, weight, size)
        prior = coefficient_loss(found.identity, found.expression, found.albedo, EXPRESSION_SIGMA, blendshape)
        return 0.5 * neutral + 0.25 * geometry + 1.6e-3 * points + 3e-4 * prior, (neutral, points)

    @jax.jit
    def step(parameters, moments, number, pool, surface):
        key = jax.random.fold_in(jax.random.key(seed), number)
        identity, expression, seen = random_landmarks(surface, pool, key, size)
        told = disturbed(seen, jax.random.fold_in(key, 1), size)
        (_, told_terms), gradient = jax.value_and_grad(loss, has_aux=True)(
            parameters, identity, expression, seen, told, surface
        )
        updates, moments = adam.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, told_terms

    pool, moments = random_pool(model, _POOL, seed), adam.init(parameters)
    for number in range(steps):
        parameters, moments, (neutral, points) = step(parameters, moments, number, pool, surface)
        if number % 250 == 0 or number == steps - 1:
            show(
                f"random landmarks, step {number}/{steps}: neutral {float(neutral):.2f} mm^2, "
                f"landmarks {float(points):.1f}"
            )
    return nnx.merge(graph, parameters, rest)
