"""Measures a trained encoder on the held-out part of data sets, told the points that our detector finds:
`python -m experiments.evaluate_encoder ENCODER.npz --data FOLDER...`. Faces not found are left out.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import jax
import tyro
from flax import nnx

from experiments.command_line import exit_status
from facefit import cache
from facefit.encoder.coefficients import coefficients
from facefit.encoder.pipeline import evaluation_batches
from facefit.encoder.surface import encoder_surface
from facefit.encoder.validation import evaluate
from facefit.encoder.weights import load_encoder
from facefit.model import find_model

_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Evaluate an encoder.

    Attributes:
        encoder: file of the trained encoder.
        data: folders of data sets.
        split: train, validation or test.
        limit: samples of each at most.
    """

    encoder: tyro.conf.Positional[Path]
    data: tuple[Path, ...]
    split: str = "test"
    limit: int = 200


def figures(arguments: Arguments) -> dict[str, dict[str, float]]:
    """By data set."""
    cache.enable()
    trained = load_encoder(arguments.encoder)
    model = find_model(trained.model)
    surface = encoder_surface(model)
    graph, state = nnx.split(trained.encoder)

    @jax.jit
    def predict(image, dense):
        return coefficients(nnx.merge(graph, state)(image, dense)[0], surface.start)

    results = {}
    for folder in arguments.data:
        batches = evaluation_batches(
            folder, arguments.split, _BATCH, trained.size, arguments.limit, trained.model
        )
        results[folder.name] = evaluate(model, surface, predict, batches, trained.size)
    return results


def main() -> int:
    """The command line."""
    arguments = tyro.cli(Arguments)
    return exit_status(lambda: print(json.dumps(figures(arguments), indent=1)))


if __name__ == "__main__":
    sys.exit(main())
