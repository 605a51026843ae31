"""Trains the small encoder on one GPU from synthetic faces, while they are being made:

    facefit synth -o DATA --count 200000 --per-person 2 --workers 14 &
    python -m experiments.train_encoder_gpu DATA -o encoder.npz --minutes 5.4

The pictures lie in the device's memory and are cut, coloured and spoiled there: all cores make data, and one
GPU trains on what there is. Every term is supervised, since the truth of synthetic faces is known; the light
and skin of real photographs are for `experiments.train_encoder cpu --start encoder.npz` to add. Time and not
a number of steps ends it, and new faces come when ready: two runs give like networks, not the same.
With jaxlib 0.11.2 set XLA_FLAGS=--xla_gpu_enable_triton_gemm=false: its Triton fusion fails on the step.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from experiments.command_line import exit_status
from facefit import cache
from facefit.encoder import dataset
from facefit.encoder.device_augmentation import Stored, augmented_batch, plain_batch
from facefit.encoder.landmarks import ibug_points
from facefit.encoder.losses import Weights
from facefit.encoder.networks import make_encoder
from facefit.encoder.surface import encoder_surface
from facefit.encoder.surface_points import SurfaceModel, random_faces, surface_model, true_points
from facefit.encoder.training import (
    TrainState,
    make_predict,
    make_step,
    optimizer,
    split,
    start_state,
)
from facefit.encoder.weights import TrainedEncoder, save_encoder
from facefit.errors import InputError
from facefit.model import find_model
from facefit.photo.face_crop import face_square

_LABELS = ("landmarks", "dense", *dataset.TRUTH)
_FEW = 600  # photographs without which training does not begin
_JUDGED = 16  # held-out photographs that are looked at together
_PARTS = 50  # of the data set, read at a time
_WARM_UP = 0.02  # of the time, in which the learning rate rises
_WEIGHTS = Weights(neutral=0.5, geometry=0.25, albedo=5.0, lighting=0.5, points=0.5, random_faces=0.5)
_AVERAGED = 1000.0  # steps that the average of the parameters is over


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train on a GPU.

    Attributes:
        data: folder of a synthetic data set, finished or in the making.
        output: the encoder's file.
        minutes: of training.
        batch: photographs a step.
        rate: the largest learning rate.
        muon: matrices move by Muon's rule instead of Adam's.
        capacity: photographs in the device's memory at most.
        held_out: of persons that are not trained on, at most.
        size: of the crops, pixels.
        seed: of the first parameters and of the order.
    """

    data: tyro.conf.Positional[Path]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    minutes: float = 7.0
    batch: int = 256
    rate: float = 2e-3
    muon: bool = False
    capacity: int = 100_000
    held_out: int = 2000
    size: int = 128
    seed: int = 0


class Reader:
    """What a data set, finished or in the making, has had so far; `fresh` gives what came since."""

    def __init__(self, folder: Path, model: SurfaceModel):
        self._folder, self._model, self._known = folder, model, set()  # numbers of samples

    @property
    def finished(self) -> bool:
        """Whether no more will come."""
        return (self._folder / "dataset.json").is_file()

    def fresh(self, parts: int) -> dict[str, np.ndarray] | None:
        """Photographs of at most so many more parts with their labels; None where none came."""
        wanted = (*_LABELS, "split")
        if self.finished:
            data = dataset.read_dataset(self._folder)
            numbers = [k for k in range(len(data.split)) if k not in self._known]
            arrays = {name: data.truth.get(name, getattr(data, name, None))[numbers] for name in wanted}
            kept = np.float32(data.identity_kept)
        else:
            names = sorted(path.stem for path in (self._folder / "parts").glob("*.npz"))
            new = [name for name in names if int(name) not in self._known][:parts]
            rows = [dataset.read_part(self._folder, name) for name in new]
            numbers = [int(name) + k for name, part in zip(new, rows) for k in range(len(part["split"]))]
            arrays = {name: np.concatenate([part[name] for part in rows]) for name in wanted if rows}
            kept = np.float32(1.0)  # what is in the making is synthetic
        if not numbers:
            return None
        self._known.update(numbers)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            images = pool.map(lambda number: dataset.read_sample(self._folder, number)[0], numbers)
            arrays["image"] = np.stack(list(images))
        squares = [face_square(ibug_points(dense)) for dense in arrays["dense"]]
        truth = [dict(zip(dataset.TRUTH, row)) for row in zip(*(arrays[name] for name in dataset.TRUTH))]
        size = arrays["image"].shape[1]
        arrays["surface468"] = np.stack([true_points(self._model, one, size) for one in truth])
        arrays["identity"] = kept * arrays["identity"]
        arrays["square"] = np.array([(*center, side) for center, side in squares], np.float32)
        return arrays


class Memory:
    """Photographs in the device's memory: buffers of a fixed capacity, the first `count` of them filled."""

    def __init__(self, capacity: int):
        self.capacity, self.count, self.stored = capacity, 0, None

    def add(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes samples in, as many as there is room for."""
        rows = min(len(arrays["square"]), self.capacity - self.count)
        if rows <= 0:
            return
        # Padded to a power of two, so that few programs are compiled; the next rows overwrite the padding.
        padded = min(1 << (rows - 1).bit_length(), self.capacity - self.count)
        fields = {field.name: arrays[field.name][:rows] for field in dataclasses.fields(Stored)}
        fields = jax.tree.map(lambda a: np.resize(a, (padded, *a.shape[1:])), fields)
        if self.stored is None:
            self.stored = Stored(
                **{k: jnp.zeros((self.capacity, *v.shape[1:]), v.dtype) for k, v in fields.items()}
            )
        self.stored = _write(self.stored, Stored(**fields), self.count)
        self.count += rows


@functools.partial(jax.jit, donate_argnums=0)
def _write(stored: Stored, rows: Stored, first: int) -> Stored:
    return jax.tree.map(
        lambda all_, new: jax.lax.dynamic_update_slice_in_dim(all_, new, first, 0), stored, rows
    )


def train(arguments: Arguments) -> dict[str, float]:
    """Trains and writes the encoder. Returns the last figures.

    Raises:
        InputError: no data in the making, or the file cannot be written.
    """
    settings = arguments.data / "settings.json"
    if not settings.is_file():
        raise InputError(f"{arguments.data}: no data set in the making. Start `facefit synth` first.")
    model = find_model(json.loads(settings.read_text(encoding="utf-8"))["model"])
    surface, faces = encoder_surface(model), random_faces(model, arguments.seed)
    half = jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
    encoder = make_encoder(model, arguments.seed, "small+landmarks", arguments.size, half)
    graph, size = split(encoder)[0], arguments.size
    adam = optax.inject_hyperparams(optimizer, static_args=("clip", "muon"))(
        schedule=0.0, clip=5.0, muon=arguments.muon
    )
    learn = make_step(graph, adam, size, rendering=False, averaged=_AVERAGED)
    predict = make_predict(graph)
    draw_batch = jax.jit(augmented_batch, static_argnames=("batch", "size"))
    cut = jax.jit(plain_batch, static_argnames="size")

    def errors(state: TrainState, stored: Stored, rows: np.ndarray) -> np.ndarray:
        """Root mean squared errors of frontal faces, mm: the predicted one's and the mean face's, (B, 2)."""
        batch = cut(stored, rows, size)
        found = predict(state, surface, batch.image, batch.dense)
        both = np.stack([found.identity - batch.identity, batch.identity], 1)
        return np.sqrt(np.einsum("bki,ij,bkj->bk", both, np.asarray(surface.identity_metric), both))

    reader, seen, held = (
        Reader(arguments.data, surface_model(model)),
        Memory(arguments.capacity),
        Memory(arguments.held_out),
    )

    def read(parts: int) -> bool:
        arrays = reader.fresh(parts)
        for memory, part in ((seen, dataset.TRAIN), (held, dataset.VALIDATION)) if arrays else ():
            members = arrays["split"] == part
            memory.add({name: values[members] for name, values in arrays.items()})
        return arrays is not None

    while seen.count < _FEW or held.count < _JUDGED:
        finished = reader.finished
        if not read(_PARTS) and finished:
            raise InputError(f"{arguments.data}: too few photographs to train on. Make some thousands.")
        time.sleep(0.2)
    state, key = start_state(encoder, adam), jax.random.key(arguments.seed)
    number, figures, shown = 0, {}, 0.0
    began = looked = time.monotonic()
    end = 60.0 * arguments.minutes
    while (spent := time.monotonic() - began) < end:
        share = spent / end
        rate = arguments.rate * min(1.0, share / _WARM_UP) * (0.5 + 0.5 * np.cos(np.pi * share)) + 1e-6
        for _ in range(20):
            one = jax.random.fold_in(key, number)
            batch = draw_batch(
                seen.stored, np.int32(seen.count), one, arguments.batch, size, mirror=surface.mirror
            )
            paced = state.optimizer._replace(hyperparams={"schedule": jnp.float32(rate)})
            state, report = learn(state.replace(optimizer=paced), surface, _WEIGHTS, batch, faces)
            number += 1
        jax.block_until_ready(report)
        if time.monotonic() - looked > 2.0:
            read(_PARTS)
            looked = time.monotonic()
        if spent - shown > end / 40:
            shown = spent
            figures = _held_out(errors, state, held) | {k: float(v) for k, v in report.terms.items()}
            line = {"seconds": spent, "step": number, "photographs": seen.count} | figures
            print(json.dumps({name: round(value, 4) for name, value in line.items()}), flush=True)
    figures = _held_out(errors, state, held)
    trained = nnx.merge(
        split(make_encoder(model, 0, "small+landmarks", size))[0], state.average, state.statistics
    )
    facts = (
        f"Trained on {seen.count} synthetic photographs, {number} steps of {arguments.batch}; on persons not "
        f"seen {100 * figures['improvement']:.0f} % nearer to the truth than the mean face."
    )
    save_encoder(TrainedEncoder(trained, None, size, model.name, facts), arguments.output)
    print(facts)
    return figures


def _held_out(errors, state: TrainState, held: Memory) -> dict[str, float]:
    """The means of `errors` over persons not trained on."""
    blocks = [
        errors(state, held.stored, np.arange(first, first + _JUDGED))
        for first in range(0, held.count - _JUDGED + 1, _JUDGED)
    ]
    error, of_mean = np.concatenate(blocks).mean(0).tolist()
    return {"neutral_mm": error, "mean_face_mm": of_mean, "improvement": 1.0 - error / of_mean}


def main() -> int:
    """The command line."""
    cache.enable()
    arguments = tyro.cli(Arguments)
    return exit_status(lambda: train(arguments))


if __name__ == "__main__":
    sys.exit(main())
