"""Trains the encoder: `python -m experiments.train_encoder paper|cpu|smoke --run FOLDER`.

The same command on the same folder goes on where the run stopped. Presets: `paper` is ResNet-50 at 224 px
with the constants of Deng et al. 2019 (a GPU's work); `cpu` is the small network at 128 px, first on labelled
synthetic faces without drawing, then with all terms; `smoke` is a few steps that show that everything works.
On several hosts start it on each with JAX_COORDINATOR_ADDRESS set (and JAX_NUM_PROCESSES, JAX_PROCESS_ID
where JAX does not know the cluster); every host reads its share of the batch.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command_line import exit_status
from facefit.encoder.losses import Weights
from facefit.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run computes.

    Attributes:
        labelled: folder of synthetic faces (`facefit synth`), or "" for none.
        photographs: folders of photographs (`facefit prepare`), which may be labelled by their fits
            (`experiments.fit_photographs`), or of further synthetic faces; each as often as it is large.
        labelled_share: of a batch, where both are given.
        model: name or file of the face model.
        backbone: resnet50, small, or small+landmarks (see `facefit.encoder.networks.Encoder`).
        imagenet: file with ImageNet weights of ResNet-50 (see `facefit.encoder.weights`), or "".
        start: a trained encoder's file (see `experiments/export_encoder.py`) to begin with, or "".
        keep_statistics: normalise as the encoder of `start` does, instead of by the batch.
        size: of the crops, pixels.
        batch: photographs a step, over all devices.
        steps: in all. point_steps: so many first ones learn from the points of random faces alone, without
            pictures. landmark_steps: so many first ones compare no pictures, and are cheaper.
        learning_rate: Adam's.
        decay: "step", a fifth of it after half the steps, as the paper; "cosine", to a fiftieth.
        warm_up: steps in which it rises from zero.
        clip: of the gradient's global norm.
        muon: matrices move by Muon's rule instead of Adam's.
        bfloat16: compute the backbone in half precision; for GPUs and TPUs.
        weights: of the loss's terms; without one of the identity feature, which needs `facefit[train]`, its
            network is not run.
        first_landmarks: weight of the landmarks in the first steps. Before the network knows poses their
            gradient is a hundred times that of the shape, and would have the shape explain the pose.
        seed: of the first parameters and the data's order.
        evaluate: steps between two looks at the held-out faces; 0: an epoch, as many steps as show so many
            photographs as there are to learn from. held_out: how many of each kind at most.
    """

    labelled: str = ""
    photographs: tuple[str, ...] = ()
    labelled_share: float = 0.5
    model: str = "open"
    backbone: str = "small+landmarks"
    imagenet: str = ""
    start: str = ""
    keep_statistics: bool = False
    size: int = 128
    batch: int = 16
    steps: int = 6000
    point_steps: int = 0
    landmark_steps: int = 3500
    learning_rate: float = 1.5e-3
    decay: str = "cosine"
    warm_up: int = 100
    clip: float = 5.0
    muon: bool = False
    bfloat16: bool = False
    weights: tyro.conf.OmitArgPrefixes[Weights] = Weights(
        identity_feature=0.0,
        exposure=0.02,
        neutral=0.5,
        geometry=0.25,
        albedo=5.0,
        lighting=0.5,
        points=0.5,
        random_faces=0.5,
    )
    first_landmarks: float = 4e-4
    seed: int = 0
    evaluate: int = 0
    held_out: int = 128


PRESETS = {
    "paper": Config(
        backbone="resnet50",
        size=224,
        batch=32,
        steps=200_000,
        landmark_steps=0,
        learning_rate=1e-4,
        decay="step",
        warm_up=0,
        bfloat16=True,
        weights=Weights(),
        held_out=1000,
    ),
    "cpu": Config(),
    "smoke": Config(batch=4, steps=6, landmark_steps=3, warm_up=0, evaluate=3, held_out=8),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run is carried out; none of it changes what is computed.

    Attributes:
        folder: of the run.
        minutes: between two checkpoints.
        stop_after: ends after this step, as if the process had been stopped; 0 does not.
        workers: processes that read data; 0 reads in the training process.
    """

    folder: Path
    minutes: float = 3.0
    stop_after: int = 0
    workers: int = 0


def schedule(config: Config):
    """The learning rate by step."""
    import optax

    rate, steps = config.learning_rate, config.steps
    if config.decay == "step":
        main = optax.piecewise_constant_schedule(rate, {steps // 2: 0.2})
    elif config.decay == "cosine":
        main = optax.cosine_decay_schedule(rate, max(steps - config.warm_up, 1), alpha=0.02)
    else:
        raise InputError(f"decay {config.decay!r}: choose step or cosine.")
    if not config.warm_up:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, rate, config.warm_up), main], [config.warm_up])


def train(config: Config, run: Run) -> None:
    """Trains, or goes on; returns when all steps are made.

    Raises:
        InputError: unusable settings or data, or a folder with another run.
        FloatingPointError: a step was not finite; its batch, if it looked at one, lies in the run folder.
    """
    import jax

    from experiments.encoder_log import Log
    from facefit import cache
    from facefit.encoder.checkpoints import Checkpoints, check_config
    from facefit.encoder.networks import make_encoder
    from facefit.encoder.pipeline import training_batches
    from facefit.encoder.surface import encoder_surface
    from facefit.encoder.surface_points import random_faces
    from facefit.encoder.training import (
        devices_mesh,
        make_predict,
        make_step,
        optimizer,
        place_batch,
        place_state,
        split,
        start_state,
    )
    from facefit.model import find_model

    cache.enable()
    chief = jax.process_index() == 0
    if chief:
        check_config(run.folder, dataclasses.asdict(config), free=("evaluate", "held_out"))
    mesh = devices_mesh()
    if config.batch % mesh.size:
        raise InputError(f"batch {config.batch}: must be divisible by the {mesh.size} devices.")
    model = find_model(config.model)
    surface = place_state(encoder_surface(model), mesh)
    with_faces = config.backbone == "small+landmarks" and config.weights.random_faces > 0
    faces = place_state(random_faces(model, config.seed), mesh) if with_faces else None
    dtype = jax.numpy.bfloat16 if config.bfloat16 and jax.default_backend() != "cpu" else jax.numpy.float32
    encoder = make_encoder(model, config.seed, config.backbone, config.size, dtype)
    if config.imagenet:
        from facefit.encoder.weights import load_imagenet

        load_imagenet(encoder, Path(config.imagenet))
    if config.start:
        from facefit.encoder.weights import load_encoder, named_arrays, set_arrays

        set_arrays(encoder, named_arrays(load_encoder(config.start).encoder), config.start)
    if config.point_steps and not with_faces:
        raise InputError(
            "point_steps: only small+landmarks with a weight of random_faces learns from points."
        )
    checkpoints = Checkpoints(run.folder)
    graph = split(encoder)[0]
    adam = optimizer(schedule(config), config.clip, config.muon)
    state = place_state(start_state(encoder, adam), mesh)
    feature = identity_feature() if config.weights.identity_feature else None
    data = iter(
        training_batches(
            labelled=config.labelled or None,
            photographs=config.photographs,
            labelled_share=config.labelled_share,
            batch_size=config.batch,
            size=config.size,
            seed=config.seed,
            workers=run.workers,
            model=config.model,
        )
    )
    if checkpoints.latest() is not None:
        state, data_state = checkpoints.restore(state)
        data.set_state(data_state)
    start = int(state.step)
    log = Log(run.folder, start, config.steps) if chief else None
    predict = make_predict(graph)
    weighed = [config.weights.replace(landmarks=config.first_landmarks), config.weights]
    held_out = _held_out(config) if chief else {}
    interval = config.evaluate or epoch_steps(config)
    steps = [
        make_step(graph, adam, config.size, rendering, mesh, feature, keep_statistics=config.keep_statistics)
        for rendering in (False, True)
    ]
    data_state = data.get_state()
    batch, saved = place_batch(next(data), mesh), time.monotonic()
    for number in range(start, config.steps):
        rendering = number >= config.landmark_steps
        pictures = number >= config.point_steps
        state, report = steps[rendering](
            state, surface, weighed[rendering], batch if pictures else None, faces
        )
        # The next batch is read while the device computes; the state noted is the one before it was.
        before, following = time.monotonic(), batch
        if pictures:
            data_state = data.get_state()
            following = next(data)
        waited = time.monotonic() - before
        if not bool(report.finite):
            told = f"step {number}: the loss or its gradient is not finite."
            if pictures:
                _keep(batch, run.folder / f"failed_step_{number}.npz")
                told += f" Its batch is kept in {run.folder}."
            raise FloatingPointError(told)
        done = number + 1
        last = done == config.steps or done == run.stop_after
        if log:
            log.step(done, report, waited, config.batch)
        if done % interval == 0 or done == config.steps:
            if log:
                forward = functools.partial(predict, state, surface)
                log.evaluate(done, config.size, model, surface, forward, held_out)
        if last or time.monotonic() - saved > 60 * run.minutes:
            checkpoints.save(state, data_state)
            saved = time.monotonic()
        if last:
            break
        batch = place_batch(following, mesh) if pictures else batch
    checkpoints.close()
    if log:
        log.close()


def epoch_steps(config: Config) -> int:
    """Steps of an epoch: they show as many photographs as there are to train on, both kinds together."""
    from facefit.encoder.dataset import TRAIN, read_dataset

    folders = [folder for folder in (config.labelled, *config.photographs) if folder]
    count = sum(int((read_dataset(folder).split == TRAIN).sum()) for folder in folders)
    return max(round(count / config.batch), 1)


def _held_out(config: Config) -> dict:
    """Batches of held-out samples by kind, without augmentation."""
    from facefit.encoder.pipeline import evaluation_batches

    found = {}
    named = [("labelled", config.labelled), *(("photographs", folder) for folder in config.photographs)]
    for name, folder in named:
        if folder:
            found.setdefault(name, []).extend(
                evaluation_batches(
                    folder, "validation", config.batch, config.size, config.held_out, config.model
                )
            )
    return found


def identity_feature():
    """The loss of identity features, as the step takes it: the rendering is aligned by its own landmarks."""
    import jax

    from facefit.energy.identity_feature import identity_feature_loss
    from facefit.photo.descriptor import descriptors, load_descriptor

    network = load_descriptor()

    def loss(drawn, projected, image, landmarks):
        photographed = jax.lax.stop_gradient(descriptors(network, image, landmarks))
        return identity_feature_loss(descriptors(network, drawn, projected), photographed)

    return loss


def _keep(batch, path: Path) -> None:
    import numpy as np

    from facefit.model.npz import write_arrays

    write_arrays({name: np.asarray(value) for name, value in vars(batch).items()}, path)


@dataclasses.dataclass(frozen=True)
class _Arguments:
    run: Annotated[Path, tyro.conf.arg(metavar="FOLDER", help="the run's folder")]
    config: tyro.conf.OmitArgPrefixes[Config]
    minutes: Annotated[float, tyro.conf.arg(help="between two checkpoints")] = 3.0
    stop_after: Annotated[int, tyro.conf.arg(help="end after this step; 0 does not")] = 0
    workers: Annotated[int, tyro.conf.arg(help="processes that read data")] = 0


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in PRESETS:
        print(f"usage: python -m experiments.train_encoder {'|'.join(PRESETS)} --run FOLDER [--help]")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    preset = PRESETS[arguments[0]]
    given = tyro.cli(
        Annotated[_Arguments, tyro.conf.arg(name="")],
        args=arguments[1:],
        default=_Arguments(run=tyro.MISSING, config=preset),
        prog=f"python -m experiments.train_encoder {arguments[0]}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        import jax

        jax.distributed.initialize()
    run = Run(given.run, given.minutes, given.stop_after, given.workers)
    return exit_status(lambda: train(given.config, run))


if __name__ == "__main__":
    sys.exit(main())
