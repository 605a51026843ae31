"""One step of training: predict, draw, compare, and move the parameters; on one device or on many."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx, struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import Coefficients, coefficients
from facefit.encoder.losses import (
    Drawn,
    Weights,
    draw,
    drawn_terms,
    point_error,
    project_landmarks,
    random_faces_term,
    supervised_terms,
    weak_terms,
    weigh,
)
from facefit.encoder.networks import Encoder
from facefit.encoder.surface import EncoderSurface
from facefit.encoder.surface_points import RandomFaces, draw_random_faces

AXIS = "data"
AVERAGED = 300.0  # steps
RANDOM_FACES = 256  # a step; twice as many where there are no photographs
# How far points are off, shares of the crop's side: at first, and beyond what the network's own are.
_FIRST_SCATTER, _SCATTER = 0.008, 0.002


@struct.dataclass
class TrainState:
    """Everything a step changes.

    Attributes:
        step: how many were made, ().
        parameters: of the network.
        average: of the parameters over the last steps, which is what is evaluated and exported: it is better
            than the parameters themselves as long as the learning rate is high.
        statistics: running means and variances of its normalisation.
        optimizer: optax's state.
    """

    step: Int[Array, ""]
    parameters: nnx.State
    average: nnx.State
    statistics: nnx.State
    optimizer: optax.OptState


@struct.dataclass
class Report:
    """What a step tells: its terms before weighing, their weighed sum, the norm of the gradient before it was
    clipped, and whether all of it was finite. A step that was not has changed nothing.
    """

    terms: dict[str, Float[Array, ""]]
    total: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]


def optimizer(
    schedule: optax.Schedule | float, clip: float = 1.0, muon: bool = False
) -> optax.GradientTransformation:
    """Adam with the gradient's global norm clipped (Deng et al. clip nothing; rendering now and then yields a
    gradient a hundred times as long as usual).

    Args:
        muon: matrices between layers move by orthogonalised momentum (Jordan et al. 2024) instead, as far a
            step as Adam's: fewer photographs teach as much. Heads keep Adam.
    """
    rule = optax.adam(schedule)
    if muon:
        rule = optax.contrib.muon(schedule, consistent_rms=0.2, muon_weight_dimension_numbers=_between_layers)
    return optax.chain(optax.clip_by_global_norm(clip), rule)


def _between_layers(parameters: nnx.State):
    """For Muon: which parameters are matrices from hidden numbers to hidden numbers."""

    def rule(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        hidden = leaf.ndim == 2 and not name.startswith("heads.") and ".which" not in name
        return optax.contrib.MuonDimensionNumbers() if hidden else None

    return jax.tree_util.tree_map_with_path(rule, parameters)


def split(encoder: Encoder) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """The network as structure, parameters and statistics."""
    return nnx.split(encoder, nnx.Param, ...)


def start_state(encoder: Encoder, adam: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    _, parameters, statistics = split(encoder)
    average = jax.tree.map(jnp.copy, parameters)
    return TrainState(jnp.zeros((), jnp.int32), parameters, average, statistics, adam.init(parameters))


def _averaged(average: nnx.State, parameters: nnx.State, step: Int[Array, ""], over: float) -> nnx.State:
    """The exponential average over about `over` steps, or over a tenth of those made where they are
    fewer.
    """
    kept = jnp.minimum(1.0 - 1.0 / over, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, b: kept * a + (1.0 - kept) * b, average, parameters)


def devices_mesh() -> Mesh:
    """All devices of all processes in a row: photographs are spread over them."""
    return Mesh(np.asarray(jax.devices()), (AXIS,))


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """This process's share of a batch, on its devices; the first axis is spread, and must be divisible."""
    spread = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(spread, np.asarray(leaf)), batch)


def place_state(state, mesh: Mesh):
    """The same values on every device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.device_put(leaf, everywhere), state)


def draw_batch(surface: EncoderSurface, found: Coefficients, size: int, mesh: Mesh | None) -> Drawn:
    """Draws a batch, each device its own photographs.

    The kernels are foreign calls, which XLA cannot divide among devices by itself: it would gather the batch
    and draw all of it on each.
    """
    together = jax.vmap(draw, in_axes=(None, 0, None))
    if mesh is None or mesh.size == 1:
        return together(surface, found, size)
    spread = PartitionSpec(AXIS)
    shared = jax.shard_map(
        lambda surface, found: together(surface, found, size),
        mesh=mesh,
        in_specs=(PartitionSpec(), spread),
        out_specs=spread,
        check_vma=False,
    )
    return shared(surface, found)


def make_step(
    graph: nnx.GraphDef,
    adam: optax.GradientTransformation,
    size: int,
    rendering: bool,
    mesh: Mesh | None = None,
    identity_feature: Callable | None = None,
    averaged: float = AVERAGED,
    keep_statistics: bool = False,
) -> Callable[..., tuple[TrainState, Report]]:
    """The compiled step: (state, surface, weights, batch, random faces or None) -> state, report.

    Without a batch (None) it learns from random faces' points alone.

    Args:
        graph: the network's structure, from `split`.
        adam: see `optimizer`.
        size: side of the crops, pixels.
        rendering: whether the terms that compare pictures take part; without them a step is much cheaper.
        mesh: devices to draw on; None is one.
        identity_feature: see `drawn_terms`.
        averaged: steps that the average of the parameters is over.
        keep_statistics: normalise with the running means and variances as they are, and leave them: what a
            trained network needs to learn more from batches that are small or of another kind.
    """

    def random_faces(encoder: Encoder, surface: EncoderSurface, faces: RandomFaces, key, off):
        keys = jax.random.split(key, 3)
        count = RANDOM_FACES * (2 if off is None else 1)
        identity, expression, points = draw_random_faces(faces, keys[0], count, size)
        scatter = size * (_FIRST_SCATTER if off is None else _SCATTER)
        points = points + scatter * jax.random.normal(keys[1], points.shape)
        if off is not None:  # as the network's own points are off at present
            rows = jax.random.randint(keys[2], (count,), 0, len(off))
            points = points + jax.lax.stop_gradient(off)[rows]
        found = coefficients(encoder.from_points(points), surface.start)
        return random_faces_term(surface, found, identity, expression)

    def loss(parameters, statistics, surface: EncoderSurface, weights: Weights, batch, faces, key):
        encoder = nnx.merge(graph, parameters, statistics, copy=True)
        terms, off = {}, None
        if batch is not None:
            outputs, features = encoder(batch.image, batch.dense, train=not keep_statistics)
            found = coefficients(outputs, surface.start)
            terms = weak_terms(surface, found, batch, size) | supervised_terms(surface, found, batch)
            if features.points:
                terms["points"], off = point_error(features.points, batch, size)
            if rendering:
                drawn = draw_batch(surface, found, size, mesh)
                projected = project_landmarks(surface, found, size)
                terms |= drawn_terms(drawn, batch, projected, identity_feature)
        if faces is not None:
            terms["random_faces"] = random_faces(encoder, surface, faces, key, off)
        return weigh(terms, weights), (terms, split(encoder)[2])

    def step(
        state: TrainState,
        surface: EncoderSurface,
        weights: Weights,
        batch: Batch | None,
        faces: RandomFaces | None = None,
    ):
        key = jax.random.fold_in(jax.random.key(0), state.step)
        (total, (terms, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.parameters, state.statistics, surface, weights, batch, faces, key
        )
        norm = optax.global_norm(gradient)
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        updates, moments = adam.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        average = _averaged(state.average, parameters, state.step, averaged)
        new = TrainState(state.step + 1, parameters, average, statistics, moments)
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        return kept, Report(terms, total, norm, finite)

    return jax.jit(step, donate_argnums=0)


def make_predict(
    graph: nnx.GraphDef,
) -> Callable[[TrainState, EncoderSurface, Array, Array], Coefficients]:
    """The compiled forward pass of the average with the running statistics: (state, surface, images, dense
    points) -> coefficients.
    """

    @jax.jit
    def predict(
        state: TrainState,
        surface: EncoderSurface,
        image: Float[Array, "B P P 3"],
        dense: Float[Array, "B 468 3"],
    ) -> Coefficients:
        outputs, _ = nnx.merge(graph, state.average, state.statistics)(image, dense, train=False)
        return coefficients(outputs, surface.start)

    return predict
