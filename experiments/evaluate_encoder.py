"""Measures a trained encoder on the held-out part of data sets, told the points that our detector finds:
`python -m experiments.evaluate_encoder ENCODER.npz --data FOLDER...`. Faces not found are left out.

With `--rendering` predictions are drawn and compared with the photographs; `--picture OUT.png` draws
predicted beside true faces, with the error in colour.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import cv2
import jax
import numpy as np
import tyro
from flax import nnx

from experiments.command_line import exit_status
from experiments.geometry_picture import geometry_picture
from facefit import cache
from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import Coefficients
from facefit.encoder.looks import look
from facefit.encoder.pipeline import evaluation_batches
from facefit.encoder.surface import EncoderSurface, encoder_surface
from facefit.encoder.validation import evaluate
from facefit.encoder.weights import TrainedEncoder, load_encoder
from facefit.errors import InputError
from facefit.export.obj import write_png
from facefit.model import FaceModel, find_model
from facefit.model.atomic import write_bytes

_BATCH = 16
_SHOWN = 6  # faces in a picture


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Evaluate an encoder.

    Attributes:
        encoder: file of the trained encoder.
        data: folders of data sets.
        split: train, validation or test.
        limit: samples of each at most.
        rendering: draw the predictions and compare colours and, with `facefit[train]`, identity features.
        picture: file for faces whose truth is known beside what is predicted, .png or .jpg.
        faces: how many in the picture.
    """

    encoder: tyro.conf.Positional[Path]
    data: tuple[Path, ...]
    split: str = "test"
    limit: int = 200
    rendering: bool = False
    picture: Path | None = None
    faces: int = _SHOWN


@dataclasses.dataclass(frozen=True)
class Measured:
    """An encoder ready to be measured.

    Attributes:
        source: name or file of its face model.
        predict: (images, dense points) -> coefficients.
        size: of its crops, pixels.
    """

    source: str
    model: FaceModel
    surface: EncoderSurface
    predict: Callable[[np.ndarray, np.ndarray], Coefficients]
    size: int

    @classmethod
    def of(cls, trained: TrainedEncoder, source: str | None = None) -> Measured:
        """With the face model that its file names, or the one of another name or file."""
        source = source or trained.model
        model = find_model(source)
        surface = encoder_surface(model)
        graph, state = nnx.split(trained.encoder)
        predict = functools.partial(_predict, graph, state, surface)
        return cls(source, model, surface, predict, trained.size)


@functools.partial(jax.jit, static_argnums=0)
def _predict(graph, state, surface, image, dense):
    return look(nnx.merge(graph, state), None, surface, image, dense)[0]


@functools.cache
def identity_features() -> Callable | None:
    """(images, landmarks) -> identity features; None, and a word why, without the network's file."""
    from facefit.photo.descriptor import descriptors, load_descriptor

    try:
        network = load_descriptor()
    except InputError as error:
        print(f"identity features are not compared: {error}", file=sys.stderr)
        return None
    graph, state = nnx.split(network)
    compiled = jax.jit(lambda state, images, marks: descriptors(nnx.merge(graph, state), images, marks))
    return functools.partial(compiled, state)


def held_out(folder: Path, splits: Sequence[str], limit: int, measured: Measured) -> list[Batch]:
    """Batches of a data set's splits, at most `limit` photographs of each."""
    parts = (
        evaluation_batches(folder, split, _BATCH, measured.size, limit, measured.source) for split in splits
    )
    return list(chain.from_iterable(parts))


def measure(measured: Measured, batches: Sequence[Batch], rendering: bool) -> dict[str, float]:
    """The figures of `facefit.encoder.validation.evaluate`."""
    describe = identity_features() if rendering else None
    return evaluate(
        measured.model, measured.surface, measured.predict, batches, measured.size, rendering, describe
    )


def draw_known(measured: Measured, batches: Sequence[Batch], path: Path, shown: int = _SHOWN) -> None:
    """Writes the picture of the first faces whose truth is known, PNG or JPEG by the name.

    Raises:
        InputError: there is none, or the file cannot be written.
    """
    pictures = known_faces(batches, measured.predict, shown)
    if pictures is None:
        raise InputError(f"{path}: of no face is the truth known. Give a data set of `facefit synth`.")
    drawn = geometry_picture(measured.model, np.asarray(measured.surface.frontal), *pictures)
    if path.suffix in (".jpg", ".jpeg"):
        quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
        write_bytes(path, cv2.imencode(".jpg", drawn[..., ::-1], quality)[1].tobytes())
    else:
        write_png(path, drawn)


def known_faces(
    batches: Sequence[Batch], predict: Callable, shown: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Photographs, predicted and true identity of the first faces whose truth is known, each another
    person; None where there are none.
    """
    rows, persons = [], set()
    for batch in batches:
        known = [k for k in np.flatnonzero(batch.labelled) if int(batch.subject[k]) not in persons]
        if not known:
            continue
        found = np.asarray(predict(batch.image, batch.dense).identity)
        for k in known:
            if int(batch.subject[k]) not in persons and len(rows) < shown:
                persons.add(int(batch.subject[k]))
                rows.append((batch.image[k], found[k], batch.identity[k]))
        if len(rows) == shown:
            break
    return tuple(np.stack(column) for column in zip(*rows)) if rows else None


def figures(arguments: Arguments) -> dict[str, dict[str, float]]:
    """By data set; writes the picture where one is asked for."""
    cache.enable()
    measured = Measured.of(load_encoder(arguments.encoder))
    results, seen = {}, []
    for folder in arguments.data:
        batches = held_out(folder, (arguments.split,), arguments.limit, measured)
        results[folder.name] = measure(measured, batches, arguments.rendering)
        seen += batches
    if arguments.picture:
        draw_known(measured, seen, arguments.picture, arguments.faces)
    return results


def main() -> int:
    """The command line."""
    arguments = tyro.cli(Arguments)
    return exit_status(lambda: print(json.dumps(figures(arguments), indent=1)))


if __name__ == "__main__":
    sys.exit(main())
