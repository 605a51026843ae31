"""A few training steps of a tiny network, for tests that run them on other devices or in other processes:
`python encoder_devices.py OUT.npz [PROCESS COUNT PORT]`.
"""

import sys
from pathlib import Path

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parent))
from tiny_model import tiny_model  # noqa: E402

from facefit.encoder.batch import Batch  # noqa: E402
from facefit.encoder.losses import Weights  # noqa: E402
from facefit.encoder.networks import make_encoder  # noqa: E402
from facefit.encoder.surface import encoder_surface  # noqa: E402
from facefit.encoder.training import (  # noqa: E402
    devices_mesh,
    make_step,
    place_batch,
    place_state,
    split,
    start_state,
)

SIZE, BATCH, STEPS = 32, 8, 3


def random_batch(seed: int, count: int = BATCH, size: int = SIZE, labelled: float = 0.5) -> Batch:
    """Noise in the shape of a batch for the tiny model; landmarks near the crop's middle."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    return Batch(
        image=random.uniform(size=(count, size, size, 3)).astype(np.float32),
        landmarks=size / 2 + size / 6 * normal(count, 68, 2),
        landmark_weight=np.ones((count, 68), np.float32),
        dense=size / 2 + size / 6 * normal(count, 468, 3),
        surface468=size / 2 + size / 6 * normal(count, 468, 2),
        skin=random.uniform(size=(count, size, size)).astype(np.float32),
        labelled=np.arange(count) < labelled * count,
        identity=normal(count, 4),
        expression=np.abs(normal(count, 3)),
        albedo=normal(count, 2),
        lighting=normal(count, 9, 3),
        subject=np.arange(count, dtype=np.int32),
    )


def losses(mesh, share: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """The losses of a few steps on all terms, and all parameters after them.

    Args:
        share: of every batch, that this process reads.
    """
    model = tiny_model()
    surface = place_state(encoder_surface(model), mesh)
    encoder = make_encoder(model, 0, "small+landmarks", SIZE)
    # Plain descent: Adam's first steps turn the rounding of a gradient near zero into a whole step.
    descent = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-2))
    state = place_state(start_state(encoder, descent), mesh)
    step = make_step(split(encoder)[0], descent, SIZE, rendering=True, mesh=mesh)
    weights = Weights(exposure=0.02, neutral=0.1, geometry=0.05, albedo=1.0)
    found = []
    for number in range(STEPS):
        batch = jax.tree.map(lambda leaf: leaf[share], random_batch(number))
        state, report = step(state, surface, weights, place_batch(batch, mesh))
        found.append([float(report.total), float(report.gradient_norm)])
    leaves = [np.asarray(leaf.addressable_data(0)).ravel() for leaf in jax.tree.leaves(state.parameters)]
    return np.asarray(found), np.concatenate(leaves)


if __name__ == "__main__":
    share = slice(None)
    if len(sys.argv) > 2:
        process, count, port = map(int, sys.argv[2:5])
        jax.distributed.initialize(f"localhost:{port}", count, process)
        share = slice(process * BATCH // count, (process + 1) * BATCH // count)
    curve, parameters = losses(devices_mesh(), share)
    np.savez(sys.argv[1], curve=curve, parameters=parameters, devices=jax.device_count())
