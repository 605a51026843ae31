"""Trains the confidence network (C-Net) on image sets, the encoder frozen, and measures what it is worth:
`python -m experiments.train_confidence ENCODER.npz --data FOLDER -o FILE.npz`.

The sets' photographs must differ in quality, or there is nothing to learn of whom to trust: `facefit synth
--graded` makes such, and there the aggregate is compared with the true face. The frozen encoder looks at
every photograph once; what it made of them is kept in memory. With `--rendering` it looks at the photographs
of every step, differently spoiled each time, and pictures are compared as well, which is all there is where
the truth is not known.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import optax
import tyro
from flax import nnx
from scipy.stats import spearmanr

from experiments.command_line import exit_status
from facefit import cache
from facefit.encoder.batch import Batch
from facefit.encoder.dataset import GRADES, SPLITS, read_dataset
from facefit.encoder.losses import Weights
from facefit.encoder.networks import ConfidenceNetwork, make_confidence_network
from facefit.encoder.pipeline import evaluation_batches, image_set_batches
from facefit.encoder.set_training import (
    Encoded,
    make_encode,
    make_set_step,
    photographs_of,
    set_errors,
)
from facefit.encoder.surface import EncoderSurface, encoder_surface
from facefit.encoder.training import devices_mesh, place_state, start_state
from facefit.encoder.weights import TrainedEncoder, load_encoder, save_encoder
from facefit.errors import InputError
from facefit.model import find_model

_LOOK = 50  # photographs encoded at a time


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train a confidence network.

    Attributes:
        encoder: file of the trained encoder.
        data: folder of image sets: several photographs a person, synthetic or not.
        output: the file to write: the encoder with its confidence network.
        held_out: another data set, all of whose persons are measured on; default the test split of `data`.
        facts: a sentence on this training, added to those that the encoder's file tells.
        steps: in all; none measures the file's own confidence network.
        sets: a step. views: photographs a set.
        learning_rate: Adam's at the start, falling to nothing as a cosine; the paper's is 2e-5 over 10,000
            steps of five sets.
        neutral: weight of the aggregate's distance from the truth, per mm^2.
        rendering: compare pictures as well.
    """

    encoder: tyro.conf.Positional[Path]
    data: Path
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    held_out: Path | None = None
    facts: str = ""
    steps: int = 300
    sets: int = 20
    views: int = 5
    learning_rate: float = 1e-4
    neutral: float = 1.0
    rendering: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Sets:
    """Photographs seen once by the frozen encoder, without their pictures.

    Attributes:
        encoded, batch: one row a photograph. members: rows of every person with two photographs or more.
    """

    encoded: Encoded
    batch: Batch
    members: tuple[np.ndarray, ...]


def look(folder: Path, splits: tuple[str, ...], trained: TrainedEncoder, surface: EncoderSurface) -> Sets:
    """Encodes a data set's photographs.

    Raises:
        InputError: nobody has two photographs.
    """
    encode = make_encode(trained.encoder, surface)
    kept = []
    for split in splits:
        for batch in evaluation_batches(folder, split, _LOOK, trained.size, model=trained.model):
            encoded = jax.tree.map(np.asarray, encode(batch.image, batch.dense))
            nothing = np.zeros((len(batch.subject), 1, 1), np.float32)
            kept.append((encoded, batch.replace(image=nothing[..., None], skin=nothing)))
    encoded, batch = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    persons = [np.flatnonzero(batch.subject == subject) for subject in np.unique(batch.subject)]
    members = tuple(rows for rows in persons if len(rows) > 1)
    if not members:
        raise InputError(f"{folder}: nobody has two photographs: there are no image sets")
    return Sets(encoded, batch, members)


def drawn_sets(sets: Sets, arguments: Arguments) -> Iterator[tuple[Encoded, Batch]]:
    """Endless batches of random sets; who has fewer photographs shows some of them more than once."""
    rng = np.random.default_rng(arguments.seed)
    while True:
        rows = []
        for person in rng.choice(len(sets.members), arguments.sets):
            order = rng.permutation(sets.members[person])
            rows.append(np.resize(order, arguments.views))
        chosen = np.concatenate(rows)
        yield jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], (sets.encoded, sets.batch))


def seen_sets(
    arguments: Arguments, trained: TrainedEncoder, surface: EncoderSurface
) -> Iterator[tuple[Encoded, Batch]]:
    """Endless batches of random sets with their pictures."""
    encode = make_encode(trained.encoder, surface)
    for sets in image_set_batches(
        arguments.data, arguments.sets, arguments.views, trained.size, arguments.seed, model=trained.model
    ):
        batch = photographs_of(sets)
        yield encode(batch.image, batch.dense), batch


def measure(
    network: ConfidenceNetwork, sets: Sets, surface: EncoderSurface, grades: dict[str, np.ndarray]
) -> dict[str, float]:
    """The errors of whole sets, and the rank correlations of confidence with how a photograph is spoiled.

    Args:
        grades: of the photographs in the order of `sets`, see `facefit.encoder.dataset.GRADES`.
    """
    found = sets.encoded.found.identity
    confidence = np.asarray(
        nnx.jit(lambda network, features: network(features))(network, sets.encoded.features)
    )
    parts = [[values[rows] for rows in sets.members] for values in (found, confidence)]
    truth = np.stack([sets.batch.identity[rows[0]] for rows in sets.members])
    figures = set_errors(surface, *parts, truth) if sets.batch.labelled.all() else {}
    # Of a photograph as a whole: coefficients count by what they move.
    moved = np.diagonal(np.asarray(surface.identity_metric))
    whole = confidence @ (moved / moved.sum())
    for name, values in grades.items():
        figures[f"confidence_with_{name}"] = float(spearmanr(whole, values).statistic)
    return figures


def held_out(arguments: Arguments, trained: TrainedEncoder, surface: EncoderSurface):
    """The sets to measure on, and their photographs' grades."""
    folder, splits = (arguments.held_out, SPLITS) if arguments.held_out else (arguments.data, ("test",))
    sets, data = look(folder, splits, trained, surface), read_dataset(folder)
    order = np.concatenate([np.flatnonzero(data.split == SPLITS.index(split)) for split in splits])
    return sets, {name: data.grades[name][order] for name in GRADES if name in data.grades}


def train(arguments: Arguments) -> dict[str, float]:
    """Trains, measures, writes; returns the figures of the held-out sets."""
    cache.enable()
    trained = load_encoder(arguments.encoder)
    surface = encoder_surface(find_model(trained.model))
    network = make_confidence_network(trained.encoder, arguments.seed)
    graph = nnx.split(network, nnx.Param, ...)[0]
    adam = optax.adam(optax.cosine_decay_schedule(arguments.learning_rate, max(arguments.steps, 1)))
    state = place_state(start_state(network, adam), devices_mesh())
    step = make_set_step(graph, adam, trained.size, arguments.views, arguments.rendering)
    if arguments.rendering:
        data = seen_sets(arguments, trained, surface)
    else:
        data = drawn_sets(look(arguments.data, ("train",), trained, surface), arguments)
    weights, began = Weights(neutral=arguments.neutral), time.monotonic()
    for number in range(arguments.steps):
        state, report = step(state, surface, weights, *next(data))
        if number % 50 == 0:
            each = (time.monotonic() - began) / (number + 1) / 60
            neutral, left = float(report.terms["neutral"]), each * (arguments.steps - number - 1)
            print(f"step {number}  neutral {neutral:.3f} mm^2  {left:.1f} min left", flush=True)
        if not bool(report.finite):
            raise FloatingPointError(f"step {number}: the loss is not finite")
    network = nnx.merge(graph, state.parameters, state.statistics)
    if not arguments.steps and trained.confidence is not None:
        network = trained.confidence
    sets, grades = held_out(arguments, trained, surface)
    figures = measure(network, sets, surface, grades)
    facts = f"{trained.facts} {arguments.facts}".strip()
    save_encoder(trained._replace(confidence=network, facts=facts), arguments.output)
    print(json.dumps(figures, indent=1))
    return figures


def main() -> int:
    """The command line."""
    arguments = tyro.cli(Arguments)
    return exit_status(lambda: train(arguments))


if __name__ == "__main__":
    sys.exit(main())
