"""Trains the confidence network (C-Net) on image sets, the encoder frozen, and measures what it is worth:
`python -m experiments.train_confidence ENCODER.npz --data FOLDER -o FILE.npz`.

The sets' photographs differ in quality (blur, covers, noise), from which the network has to learn whom to
trust. On labelled sets the aggregate is compared with the true face; `--rendering` adds the terms that
compare pictures, which are all there is for photographs.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import optax
import tyro
from flax import nnx

from facefit import cache
from facefit.encoder.coefficients import coefficients
from facefit.encoder.losses import Weights
from facefit.encoder.networks import make_confidence_network
from facefit.encoder.pipeline import image_set_batches
from facefit.encoder.set_training import make_set_step, photographs_of, set_errors
from facefit.encoder.surface import encoder_surface
from facefit.encoder.training import devices_mesh, place_state, start_state
from facefit.encoder.weights import load_encoder, save_encoder
from facefit.errors import FacefitError
from facefit.model import find_model


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train a confidence network.

    Attributes:
        encoder: file of the trained encoder.
        data: folder of image sets: several photographs a person, synthetic or not.
        output: the file to write: the encoder with its confidence network.
        steps: in all. sets: a step. views: photographs a set.
        learning_rate: Adam's; the paper's is 2e-5 over 10,000 steps of five sets.
        rendering: compare pictures as well.
        held_out: sets of the test split to measure on.
    """

    encoder: tyro.conf.Positional[Path]
    data: Path
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    steps: int = 1000
    sets: int = 5
    views: int = 5
    learning_rate: float = 2e-4
    rendering: bool = False
    held_out: int = 60
    seed: int = 0


def measure(arguments: Arguments, trained, network, surface, split: str) -> dict[str, float]:
    """The errors of held-out sets of graded quality."""

    @nnx.jit
    def forward(encoder, network, image, dense):
        outputs, features = encoder(image, dense)
        return coefficients(outputs, surface.start).identity, network(features)

    batches = iter(
        image_set_batches(
            arguments.data, arguments.sets, arguments.views, trained.size, 1, model=trained.model, split=split
        )
    )
    kept = []
    for _ in range(-(-arguments.held_out // arguments.sets)):
        sets = next(batches)
        photographs = photographs_of(sets)
        found = forward(trained.encoder, network, photographs.image, photographs.dense)
        shape = (arguments.sets, arguments.views, -1)
        kept.append([*(np.asarray(part).reshape(shape) for part in found), sets.identity[:, 0]])
    identity, confidence, truth = (np.concatenate(parts) for parts in zip(*kept))
    return set_errors(surface, identity, confidence, truth)


def train(arguments: Arguments) -> dict[str, float]:
    """Trains, measures, writes; returns the figures of the test split."""
    cache.enable()
    trained = load_encoder(arguments.encoder)
    model = find_model(trained.model)
    surface = encoder_surface(model)
    network = make_confidence_network(trained.encoder, arguments.seed)
    graph = nnx.split(network, nnx.Param, ...)[0]
    adam = optax.adam(arguments.learning_rate)
    state = place_state(start_state(network, adam), devices_mesh())
    step = make_set_step(trained.encoder, graph, adam, trained.size, arguments.views, arguments.rendering)
    data = iter(
        image_set_batches(
            arguments.data, arguments.sets, arguments.views, trained.size, arguments.seed, model=trained.model
        )
    )
    began = time.monotonic()
    for number in range(arguments.steps):
        state, report = step(state, surface, Weights(neutral=0.1), next(data))
        if number % 50 == 0:
            each = (time.monotonic() - began) / (number + 1) / 60
            neutral, left = float(report.terms["neutral"]), each * (arguments.steps - number - 1)
            print(f"step {number}  neutral {neutral:.3f} mm^2  {left:.0f} min left", flush=True)
        if not bool(report.finite):
            raise FloatingPointError(f"step {number}: the loss is not finite")
    network = nnx.merge(graph, state.parameters, state.statistics)
    save_encoder(trained._replace(confidence=network), arguments.output)
    figures = measure(arguments, trained, network, surface, "test")
    print(json.dumps(figures))
    return figures


def main() -> int:
    """The command line."""
    arguments = tyro.cli(Arguments)
    try:
        train(arguments)
    except (FacefitError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
