"""Writes the encoder of a training run as one file for `facefit predict --encoder`, or for the package:
`python -m experiments.export_encoder RUN -o FILE.npz --facts "what it was trained on"`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command_line import exit_status
from facefit.encoder.checkpoints import Checkpoints
from facefit.encoder.networks import Encoder, make_encoder
from facefit.encoder.training import optimizer, split, start_state
from facefit.encoder.weights import TrainedEncoder, load_encoder, named_arrays, save_encoder, set_arrays
from facefit.errors import InputError
from facefit.model import find_model


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Export a trained encoder.

    Attributes:
        run: folder of a run of `experiments.train_encoder`.
        output: the file to write.
        facts: a sentence on its training, kept in the file and told in every prediction's report.
        confidence: file with a C-Net trained for it (`experiments.train_confidence`), to go into the same
            file.
        mixed_with: file of an encoder that the run, or a run before it, started from: what is written has a
            share of its parameters, and the rest of the run's, which keeps more of what that encoder knew
            and has most of what the run taught (Wortsman et al. 2022).
        share: of `mixed_with`.
        identity_kept: what is kept of the identity found, as in a fit: networks too are surer of real persons
            than they should be.
    """

    run: tyro.conf.Positional[Path]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    facts: str
    confidence: Path | None = None
    mixed_with: Path | None = None
    share: float = 0.5
    identity_kept: float = 1.0


def trained_encoder(run: Path, facts: str) -> TrainedEncoder:
    """The averaged network of a run's newest checkpoint.

    Raises:
        InputError: no run there, or no checkpoint yet.
    """
    from flax import nnx

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
    rule = optimizer(lambda step: 0.0, muon=config.get("muon", False))
    state, _ = checkpoints.restore(start_state(encoder, rule))
    checkpoints.close()
    trained = nnx.merge(split(encoder)[0], state.average, state.statistics)
    told = f"{facts} {int(state.step)} steps of {config['batch']} photographs."
    return TrainedEncoder(trained, None, config["size"], model.name, told.strip())


def mix(encoder: Encoder, other: Encoder, share: float, where: str) -> None:
    """Gives a network `share` of the parameters and statistics of another of the same layout.

    Raises:
        InputError: the other is of another layout.
    """
    mine, theirs = named_arrays(encoder), named_arrays(other)
    shapes = [{name: values.shape for name, values in arrays.items()} for arrays in (mine, theirs)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{where}: not the network of this run. Give the file of one that it started from.")
    mixed = {name: (1.0 - share) * mine[name] + share * theirs[name] for name in mine}
    set_arrays(encoder, mixed, where)


def shrink_identity(encoder: Encoder, kept: float) -> None:
    """Lets a network predict `kept` times the identity that it did."""
    head = encoder.heads["identity"]
    for parameter in (head.kernel, head.bias):
        parameter[...] = kept * parameter[...]


def export(given: Arguments) -> None:
    """Writes the file and says what is in it.

    Raises:
        InputError: no run there, a share out of range, or an encoder of another layout.
    """
    for name in ("share", "identity_kept"):
        if not 0.0 <= getattr(given, name) <= 1.0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(given, name)}: must be in [0, 1].")
    trained = trained_encoder(given.run, given.facts)
    if given.mixed_with:
        mix(trained.encoder, load_encoder(given.mixed_with).encoder, given.share, str(given.mixed_with))
    shrink_identity(trained.encoder, given.identity_kept)
    if given.confidence:
        trained = trained._replace(confidence=load_encoder(given.confidence).confidence)
    save_encoder(trained, given.output)
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.1f} MB. {trained.facts}")


def main() -> int:
    """The command line."""
    given = tyro.cli(Arguments)
    return exit_status(lambda: export(given))


if __name__ == "__main__":
    sys.exit(main())
