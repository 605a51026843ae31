"""Measures a trained encoder on the held-out part of data sets, with the sets' own landmarks and with those
that our detector finds: `python -m experiments.evaluate_encoder ENCODER.npz --data FOLDER...`.

An encoder that is told landmarks does better with a synthetic set's exact ones than a user will see; the
figures with detected ones are the honest ones. They leave out faces that the detector does not find.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import tyro
from flax import nnx

from facefit import cache
from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import coefficients
from facefit.encoder.dataset import SPLITS, read_dataset, read_sample
from facefit.encoder.landmarks import ibug_points
from facefit.encoder.pipeline import evaluation_batches
from facefit.encoder.surface import encoder_surface
from facefit.encoder.validation import evaluate
from facefit.encoder.weights import load_encoder
from facefit.errors import FacefitError
from facefit.model import find_model
from facefit.photo import detect, dlib68
from facefit.photo.cropping import warp
from facefit.photo.face_crop import network_crop

_MARGIN = 48  # pixels around a stored crop, without which the detector misses large faces
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Evaluate an encoder.

    Attributes:
        encoder: file of the trained encoder.
        data: folders of data sets.
        split: train, validation or test.
        limit: samples of each at most.
        detect: find the landmarks anew, and cut the crop by them, as `facefit predict` does.
    """

    encoder: tyro.conf.Positional[Path]
    data: tuple[Path, ...]
    split: str = "test"
    limit: int = 200
    detect: bool = False


def detected(folder: Path, batches: Iterator[Batch], split: str, limit: int, size: int) -> Iterator[tuple]:
    """(batch, points told to the network) with crops by our detector's points; truth in the new crop."""
    data = read_dataset(folder)
    members = np.flatnonzero(data.split == SPLITS.index(split))[:limit]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
    rows, told = [], []
    for row, index in enumerate(members):
        picture, _ = read_sample(data.folder, int(index))
        wide = np.pad(picture, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), mode="edge")
        faces = detect.find_faces(wide)
        if not faces:
            continue
        chosen = detect.choose(wide, faces, "largest")
        points = ibug_points(chosen.landmarks, dlib68.landmarks68(wide, chosen.landmarks)) - _MARGIN
        matrix = network_crop(points, size)
        scale, offset = matrix[0, 0], matrix[:2, 2]
        image = warp(picture, matrix, size).astype(np.float32) / 255
        truth = (data.landmarks[index] - offset) / scale
        one = jax.tree.map(lambda leaf, row=row: leaf[row], whole)
        rows.append(one.replace(image=image, landmarks=truth.astype(np.float32)))
        told.append(((points - offset) / scale).astype(np.float32))
    print(f"{folder}: {len(rows)} of {len(members)} faces found", file=sys.stderr)
    for first in range(0, len(rows), _BATCH):
        part = rows[first : first + _BATCH]
        yield jax.tree.map(lambda *leaves: np.stack(leaves), *part), np.stack(told[first : first + _BATCH])


def figures(arguments: Arguments) -> dict[str, dict[str, float]]:
    """By data set."""
    cache.enable()
    trained = load_encoder(arguments.encoder)
    model = find_model(trained.model)
    surface = encoder_surface(model)
    graph, state = nnx.split(trained.encoder)

    @jax.jit
    def predict(image, landmarks):
        return coefficients(nnx.merge(graph, state)(image, landmarks)[0], surface.start)

    results = {}
    for folder in arguments.data:
        batches = evaluation_batches(
            folder, arguments.split, _BATCH, trained.size, arguments.limit, trained.model
        )
        if not arguments.detect:
            results[folder.name] = evaluate(model, surface, predict, batches, trained.size)
            continue
        pairs = list(detected(folder, batches, arguments.split, arguments.limit, trained.size))
        points = iter([told for _, told in pairs])
        found = evaluate(
            model,
            surface,
            lambda image, _, points=points: predict(image, next(points)),
            [batch for batch, _ in pairs],
            trained.size,
        )
        results[folder.name] = found
    return results


def main() -> int:
    """The command line."""
    try:
        print(json.dumps(figures(tyro.cli(Arguments)), indent=1))
    except FacefitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
