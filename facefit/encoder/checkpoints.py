"""Checkpoints of a training run: everything a step depends on, so that a killed run goes on as if it had not
been.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from facefit.encoder.training import TrainState
from facefit.errors import InputError
from facefit.model.atomic import write_text

_CONFIG = "config.json"


class Checkpoints:
    """The checkpoints in a run folder; the newest two are kept. A checkpoint appears whole or not at all."""

    def __init__(self, folder: Path):
        self._manager = ocp.CheckpointManager(
            (folder / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False),
        )

    def latest(self) -> int | None:
        """The step of the newest one; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: Any) -> None:
        """Writes network, optimiser, step and the state of the data pipeline, which holds all randomness.

        Args:
            data: what `data.get_state()` gave before the first batch that `state` has not seen; plain JSON.
        """
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(state=ocp.args.StandardSave(_named(state)), data=ocp.args.JsonSave(data)),
        )

    def restore(self, like: TrainState) -> tuple[TrainState, Any]:
        """The newest checkpoint: the state, placed on devices as `like` is, and the data pipeline's.

        Raises:
            InputError: the checkpoint is of another network.
        """
        step = self.latest()
        named = _named(like)
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, named)
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes), data=ocp.args.JsonRestore()),
            )
        except (ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint {step}: not of this network ({str(error)[:200]} ...). Give another run folder."
            ) from error
        leaves = [found["state"][name] for name in named]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), found["data"]

    def close(self) -> None:
        """Ends what orbax has running."""
        self._manager.close()


def _named(state: TrainState) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def check_config(folder: Path, config: dict[str, Any], free: Sequence[str] = ()) -> bool:
    """Notes a run's settings in its folder, or compares with those noted before.

    Args:
        config: plain JSON values that decide what the run computes.
        free: names of values that do not, and may be others when the run goes on.

    Returns:
        whether the folder holds a run already.

    Raises:
        InputError: it does, with other settings; the message lists the differences.
    """
    path = folder / _CONFIG
    config = json.loads(json.dumps(config))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(config, indent=1) + "\n")
        return False
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}). Delete the run folder, or give another.") from None
    names = sorted((before.keys() | config.keys()) - set(free))
    different = [name for name in names if before.get(name) != config.get(name)]
    if different:
        listed = "\n".join(
            f"  {name}: {before.get(name)!r} there, {config.get(name)!r} now" for name in different
        )
        raise InputError(
            f"{folder}: holds a run with other settings, which cannot go on with these:\n{listed}\n"
            "Give another run folder, or the settings it began with."
        )
    return True
