"""What each loss buys: trains the encoder with all of them, and again without each in turn, from the same
start on the same photographs, and measures all on the same held-out faces:

    python -m experiments.ablate_encoder --labelled SYNTHETIC --photographs PHOTOGRAPHS --run FOLDER
        [--start FILE] [--steps N] ...

FOLDER/ROW/ are runs of `experiments.train_encoder`, whose settings can all be given. The same command goes
on where it was stopped. FOLDER/table.md and table.json are the table, written anew after every row.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command_line import exit_status
from experiments.evaluate_encoder import Measured, draw_known, held_out, measure
from experiments.export_encoder import trained_encoder
from experiments.train_encoder import Config, Run, train
from facefit import cache
from facefit.encoder.losses import Weights
from facefit.encoder.networks import make_encoder
from facefit.encoder.weights import TrainedEncoder, load_encoder
from facefit.errors import InputError
from facefit.model import find_model
from facefit.model.atomic import write_text

# Terms that know the truth, which are one row together, and what they weigh where they are added.
TRUTH = ("neutral", "geometry", "albedo", "lighting", "points", "random_faces")
ADDED_TRUTH = {"neutral": 0.5, "geometry": 0.25, "albedo": 5.0}
START, FULL, OTHER_SEED, WITH_TRUTH = "start", "all", "other_order", "with_truth"
TITLES = {
    START: "the start",
    FULL: "all losses",
    OTHER_SEED: "all losses, another order of the data",
    WITH_TRUTH: "all losses, and the truth of labelled faces",
}
# Kind of data, figure, heading, digits, factor.
COLUMNS = (
    ("labelled", "neutral_mm", "neutral face, mm", 3, 1.0),
    ("labelled", "improvement", "nearer than the mean face, %", 1, 100.0),
    ("labelled", "albedo_rms", "albedo error", 4, 1.0),
    ("photographs", "nme_percent", "landmarks, % of box", 2, 1.0),
    ("photographs", "photometric", "colour error", 4, 1.0),
    ("photographs", "identity_similarity", "identity features, cosine", 4, 1.0),
)
SPLITS = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train an encoder without each loss in turn.

    Attributes:
        run: folder for the runs and the table.
        config: of the run with all losses: those of Deng et al. 2019 with their constants, which look at
            labelled faces, a quarter of a batch, as at other photographs. Beside the truth, where it has a
            weight, they change little.
        rows: which of them, by name; none is all.
        limit: held-out photographs of each kind and split that are measured at most.
        minutes: between two checkpoints. workers: processes that read data.
    """

    run: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    config: tyro.conf.OmitArgPrefixes[Config] = Config(
        labelled_share=0.25,
        keep_statistics=True,
        steps=200,
        landmark_steps=0,
        learning_rate=3e-4,
        warm_up=20,
        weights=Weights(),
        held_out=32,
    )
    rows: tuple[str, ...] = ()
    limit: int = 96
    minutes: float = 3.0
    workers: int = 0


def variants(config: Config) -> dict[str, Config]:
    """The trainings by name: with everything; the same with the data in another order, which shows how much
    is chance; without each loss that counts there; without the truth, or with it; without each kind of data.

    An encoder that starts from nothing has no statistics to keep.
    """
    change = dataclasses.replace
    config = change(config, keep_statistics=config.keep_statistics and bool(config.start))
    found = {FULL: config, OTHER_SEED: change(config, seed=config.seed + 1)}
    for field in dataclasses.fields(Weights):
        if getattr(config.weights, field.name) and field.name not in TRUTH:
            weights = config.weights.replace(**{field.name: 0.0})
            # The landmarks have a weight of their own in a training's first steps.
            first = 0.0 if field.name == "landmarks" else config.first_landmarks
            found[f"no_{field.name}"] = change(config, weights=weights, first_landmarks=first)
    if config.labelled and any(getattr(config.weights, name) for name in TRUTH):
        found["no_truth"] = change(config, weights=config.weights.replace(**dict.fromkeys(TRUTH, 0.0)))
    elif config.labelled:
        found[WITH_TRUTH] = change(config, weights=config.weights.replace(**ADDED_TRUTH))
    if config.labelled and config.photographs:
        found["no_labelled_faces"] = change(config, labelled="")
        found["no_photographs"] = change(config, photographs=())
    return found


def ablate(arguments: Arguments) -> None:
    """Trains and measures what is not done yet, and writes the table.

    Raises:
        InputError: no data, a row that is not there, or a folder with a run of other settings.
    """
    cache.enable()
    config = arguments.config
    if not config.labelled and not config.photographs:
        raise InputError("there are no data to train on: give --labelled, --photographs, or both.")
    trainings = {START: config} | variants(config)
    unknown = sorted(set(arguments.rows) - set(trainings))
    if unknown:
        raise InputError(f"rows {', '.join(unknown)}: choose from {', '.join(trainings)}.")
    chosen = [name for name in trainings if name in arguments.rows or not arguments.rows]
    for place, name in enumerate(chosen, 1):
        if _figures(arguments, name, trainings[name]) is None:
            print(f"[{place} of {len(chosen)}] {name}", flush=True)
            _make(arguments, name, trainings[name])
        done = {name: _figures(arguments, name, each) for name, each in trainings.items()}
        done = {name: figures for name, figures in done.items() if figures is not None}
        write_text(arguments.run / "table.json", json.dumps(done, indent=1) + "\n")
        write_text(arguments.run / "table.md", table(done) + "\n" + _note(arguments, done))
    print((arguments.run / "table.md").read_text(encoding="utf-8"))


def _made_with(arguments: Arguments, config: Config) -> dict:
    """All that a row's figures depend on, as JSON gives it back."""
    whole = arguments.config
    settings = {"config": dataclasses.asdict(config), "limit": arguments.limit}
    settings |= {"labelled": whole.labelled, "photographs": whole.photographs}
    return json.loads(json.dumps(settings))


def _figures(arguments: Arguments, name: str, config: Config) -> dict[str, dict[str, float]] | None:
    """What was measured of a row by kind of data; None where it was not, or with other settings."""
    path = arguments.run / name / "evaluation.json"
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["figures"] if kept["made_with"] == _made_with(arguments, config) else None


def _make(arguments: Arguments, name: str, config: Config) -> None:
    """Trains a row, or goes on, and measures it on the held-out part of all data."""
    folder = arguments.run / name
    if name == START:
        trained = _start(config)
    else:
        train(config, Run(folder, arguments.minutes, workers=arguments.workers))
        trained = trained_encoder(folder, "")
    folder.mkdir(parents=True, exist_ok=True)
    measured, figures = Measured.of(trained, config.model), {}
    whole = arguments.config
    for kind, folders in (("labelled", [whole.labelled]), ("photographs", whole.photographs)):
        parts = [held_out(Path(folder), SPLITS, arguments.limit, measured) for folder in folders if folder]
        batches = [batch for part in parts for batch in part]
        if batches:
            figures[kind] = measure(measured, batches, rendering=kind == "photographs")
            if kind == "labelled" and figures[kind].get("neutral_mm"):
                draw_known(measured, batches, folder / "geometry.png")
    kept = {"made_with": _made_with(arguments, config), "figures": figures}
    write_text(folder / "evaluation.json", json.dumps(kept, indent=1) + "\n")


def _start(config: Config) -> TrainedEncoder:
    """What every row begins with."""
    if config.start:
        return load_encoder(config.start)
    model = find_model(config.model)
    encoder = make_encoder(model, config.seed, config.backbone, config.size)
    return TrainedEncoder(encoder, None, config.size, model.name, "")


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as a table in Markdown, with differences from the row with everything; by row and kind."""
    columns = [
        column for column in COLUMNS if any(_value(row, column) is not None for row in results.values())
    ]
    lines = [
        "| | " + " | ".join(heading for _, _, heading, _, _ in columns) + " |",
        "|---" * len(columns) + "|---|",
    ]
    for name, row in results.items():
        cells = []
        for column in columns:
            value, full, digits = _value(row, column), _value(results.get(FULL, {}), column), column[3]
            cell = "" if value is None else f"{value:.{digits}f}"
            if value is not None and full is not None and name not in (START, FULL):
                cell += f" ({value - full:+.{digits}f})"
            cells.append(cell)
        title = TITLES.get(name, name.replace("no_", "without ", 1).replace("_", " "))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _value(row: dict[str, dict[str, float]], column: tuple) -> float | None:
    kind, figure, _, _, factor = column
    value = row.get(kind, {}).get(figure)
    return None if value is None else factor * value


def _note(arguments: Arguments, results: dict[str, dict[str, dict[str, float]]]) -> str:
    """What the table is of."""
    config, seen = arguments.config, next(iter(results.values()), {})
    words = {"labelled": "labelled faces", "photographs": "photographs"}
    counts = " and ".join(f"{figures['photographs']:.0f} {words[kind]}" for kind, figures in seen.items())
    return (
        f"\n{config.steps} steps of {config.batch} photographs at {config.size} px from "
        f"{config.start or 'nothing'}; measured on {counts} of held-out persons. In brackets: the difference "
        "from all losses. What another order of the data changes is chance.\n"
    )


def main() -> int:
    """The command line."""
    arguments = tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,))
    return exit_status(lambda: ablate(arguments))


if __name__ == "__main__":
    sys.exit(main())
