"""Writes the encoder of a training run as one file for `facefit predict --encoder`, or for the package:
`python -m experiments.export_encoder RUN -o FILE.npz --facts "what it was trained on"`.

With `--persons PHOTOGRAPHS... --renderings SYNTHETIC` its identities are calibrated on the way. What a
network that learned from renderings says of real persons has a part that is the same for all of them, and
scatters more than what it says of renderings, where it is right to trust it as much as it does. The first is
taken off: the population's mean is the model's. The second is taken for noise: an identity coefficient is
shrunk by the ratio of its variances. Both are linear and go into the identity head's weights and bias.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from flax import nnx
from jaxtyping import Float

from facefit import cache
from facefit.encoder import dataset
from facefit.encoder.checkpoints import Checkpoints
from facefit.encoder.networks import make_encoder
from facefit.encoder.pipeline import evaluation_batches
from facefit.encoder.training import optimizer, split, start_state
from facefit.encoder.weights import TrainedEncoder, load_encoder, save_encoder
from facefit.errors import FacefitError, InputError
from facefit.model import find_model


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Export a trained encoder.

    Attributes:
        run: folder of a run of `experiments.train_encoder`, or the file of a trained encoder.
        output: the file to write.
        facts: a sentence on its training, kept in the file and told in every prediction's report.
        confidence: file with a C-Net trained for it (`experiments.train_confidence`), to go into the same
            file.
        persons: data sets of photographs to calibrate with. Each counts by its number of persons.
        renderings: a synthetic data set to calibrate with.
    """

    run: tyro.conf.Positional[Path]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    facts: str
    confidence: Path | None = None
    persons: tuple[Path, ...] = ()
    renderings: Path | None = None


def trained_encoder(run: Path, facts: str) -> TrainedEncoder:
    """The averaged network of a run's newest checkpoint.

    Raises:
        InputError: no run there, or no checkpoint yet.
    """
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{run}: no training run. Give the folder after --run of the training.") from None
    model = find_model(config["model"])
    encoder = make_encoder(model, 0, config["backbone"], config["size"])
    checkpoints = Checkpoints(run)
    if checkpoints.latest() is None:
        raise InputError(f"{run}: no checkpoint yet. Wait for the first one.")
    # A schedule, as in the run: its count is part of the optimiser's state.
    state, _ = checkpoints.restore(start_state(encoder, optimizer(lambda step: 0.0)))
    checkpoints.close()
    trained = nnx.merge(split(encoder)[0], state.average, state.statistics)
    told = f"{facts} {int(state.step)} steps of {config['batch']} photographs."
    return TrainedEncoder(trained, None, config["size"], model.name, told.strip())


def predicted_identities(trained: TrainedEncoder, folder: Path) -> Float[np.ndarray, "N I"]:
    """What an encoder says of a data set's persons, the mean over each one's photographs."""
    graph, state = nnx.split(trained.encoder)

    @jax.jit
    def forward(image, dense):
        return nnx.merge(graph, state)(image, dense)[0]["identity"]

    found, subject = [], []
    for part in dataset.SPLITS:
        for batch in evaluation_batches(folder, part, 16, trained.size, model=trained.model):
            found.append(np.asarray(forward(batch.image, batch.dense)))
            subject.append(batch.subject)
    found, subject = np.concatenate(found), np.concatenate(subject)
    return np.stack([found[subject == person].mean(0) for person in np.unique(subject)])


def calibrate(
    trained: TrainedEncoder,
    persons: Float[np.ndarray, "N I"],
    renderings: Float[np.ndarray, "M I"],
) -> Float[np.ndarray, " I"]:
    """Changes the identity head so that it says of real persons what it should (see the module's own text).

    Args:
        persons, renderings: what it says now, of each person once.

    Returns:
        what each coefficient was shrunk by.
    """
    shrink = np.minimum(1.0, renderings.var(0) / np.maximum(persons.var(0), 1e-12)).astype(np.float32)
    head = trained.encoder.heads["identity"]
    head.kernel[...] = head.kernel[...] * shrink
    head.bias[...] = (head.bias[...] - persons.mean(0)) * shrink
    return shrink


def main() -> int:
    """The command line."""
    cache.enable()
    given = tyro.cli(Arguments)
    try:
        if bool(given.persons) != bool(given.renderings):
            raise InputError("calibration needs both --persons and --renderings.")
        if given.run.is_file():
            trained = load_encoder(given.run)._replace(facts=given.facts)
        else:
            trained = trained_encoder(given.run, given.facts)
        if given.persons:
            real = np.concatenate([predicted_identities(trained, folder) for folder in given.persons])
            shrink = calibrate(trained, real, predicted_identities(trained, given.renderings))
            print(
                f"calibrated on {len(real)} persons: their mean, {np.linalg.norm(real.mean(0)):.2f} long, is "
                f"zero now; shrunk to {shrink.min():.2f} - {shrink.max():.2f}, {shrink.mean():.2f} on average"
            )
        if given.confidence:
            trained = trained._replace(confidence=load_encoder(given.confidence).confidence)
        save_encoder(trained, given.output)
    except FacefitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.1f} MB. {trained.facts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
