"""Draws a training run's log as curves: every term of the loss by step, and what was measured on held-out
faces: `python -m experiments.curves RUN` writes RUN/curves.png. A training does so at every evaluation.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import tyro

from experiments.command_line import exit_status
from facefit.errors import InputError
from facefit.model.atomic import write_bytes

MISSING = "matplotlib is not installed: no curves.png. pip install 'facefit[train]' adds it."
_NO_CURVES = ("step", "seconds", "waited", "evaluation", "photographs")
_UNITS = {
    "neutral_mm": "neutral face, error (mm)",
    "improvement": "improvement on the mean face",
    "nme_percent": "landmarks, NME (% of box)",
    "albedo_rms": "albedo of the skin, error",
    "photometric": "colours of the skin, error",
    "identity_similarity": "identity features, cosine",
}
_COLUMNS = 4
_POINTS = 600  # of a curve at most: more are drawn as means
_SMOOTH = 0.05  # of the run, over which a term is smoothed
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito: told apart by everyone


@dataclasses.dataclass(frozen=True)
class Curve:
    """Values by step, both (N,)."""

    steps: np.ndarray
    values: np.ndarray


def read_log(path: Path) -> tuple[dict[str, Curve], dict[str, dict[str, Curve]]]:
    """The curves of the terms of the loss by name, and of the held-out figures by figure and kind of data.

    Lines that were cut off are left out.

    Raises:
        InputError: no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise InputError(f"{path}: no log. Give the folder after --run of a training.") from None
    terms: dict[str, list] = {}
    figures: dict[str, dict[str, list]] = {}
    for line in lines:
        try:
            values = json.loads(line)
            step, kind = values["step"], values.get("evaluation")
        except (ValueError, KeyError, TypeError):
            continue
        for name, value in values.items():
            if name in _NO_CURVES:
                continue
            curves = figures.setdefault(name, {}) if kind else terms
            curves.setdefault(kind or name, []).append((step, value))
    return (
        {name: _curve(rows) for name, rows in terms.items()},
        {name: {kind: _curve(rows) for kind, rows in kinds.items()} for name, kinds in figures.items()},
    )


def _curve(rows: list[tuple[int, float]]) -> Curve:
    steps, values = np.asarray(rows, np.float64).T
    return Curve(steps, values)


def smoothed(curve: Curve) -> Curve:
    """A curve's running mean, of each point and those around it; at the ends over fewer."""
    reach = max(1, round(_SMOOTH * len(curve.steps) / 2))
    total = np.concatenate([[0.0], np.cumsum(curve.values)])
    places = np.arange(len(curve.values))
    first, end = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(places))
    return Curve(curve.steps, (total[end] - total[first]) / (end - first))


def thinned(curve: Curve) -> Curve:
    """At most `_POINTS` points, each the mean of its neighbours."""
    parts = np.array_split(np.arange(len(curve.steps)), min(_POINTS, len(curve.steps)))
    return Curve(
        *(np.array([values[part].mean() for part in parts]) for values in (curve.steps, curve.values))
    )


def draw_curves(folder: Path) -> bool:
    """Writes the run's curves.png; False where matplotlib is not installed.

    Terms are drawn before weighing, faint as they were and strong as smoothed; held-out figures with dots.

    Raises:
        InputError: no log, or nothing in it yet.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    terms, figures = read_log(folder / "log.jsonl")
    mean_face = figures.pop("mean_face_mm", {})
    panels = [(name, None) for name in _UNITS if name in figures]
    panels += [(name, None) for name in figures if name not in _UNITS]
    panels += [(None, name) for name in ("total", *sorted(set(terms) - {"total"})) if name in terms]
    if not panels:
        raise InputError(f"{folder}: the log is empty yet. Wait for the first step.")
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(4.0 * _COLUMNS, 2.7 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    kinds = sorted({kind for curves in figures.values() for kind in curves})
    last = max(curve.steps[-1] for curve in terms.values()) if terms else None
    for axis, (measured, term) in zip(axes, panels):
        if measured:
            _draw_figure(axis, measured, figures[measured], mean_face, kinds)
        else:
            _draw_term(axis, term, terms[term])
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, last and 1.03 * last)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(folder / "curves.png", buffer.getvalue())
    return True


def _draw_figure(axis, name: str, curves: dict[str, Curve], mean_face: dict[str, Curve], kinds: list) -> None:
    axis.set_title(f"held out: {_UNITS.get(name, name)}", fontsize=9, loc="left")
    for kind, curve in sorted(curves.items()):
        color = _COLORS[kinds.index(kind) % len(_COLORS)]
        axis.plot(curve.steps, curve.values, "o-", ms=3.5, lw=1.5, color=color, label=kind)
        if name == "neutral_mm" and kind in mean_face:
            axis.axhline(mean_face[kind].values[-1], ls="--", lw=1, color=color, label=f"{kind}, mean face")
    axis.legend(fontsize=7, frameon=False)


def _draw_term(axis, name: str, curve: Curve) -> None:
    axis.set_title(f"training: {name}", fontsize=9, loc="left")
    few, smooth = thinned(curve), thinned(smoothed(curve))
    axis.plot(few.steps, few.values, lw=0.8, color="0.75")
    axis.plot(smooth.steps, smooth.values, lw=1.6, color="0.15")
    positive = curve.values[curve.values > 0]
    if len(positive) == len(curve.values) and positive.max() > 20 * positive.min():
        axis.set_yscale("log")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw a run's curves.

    Attributes:
        run: folder of a run of `experiments.train_encoder`.
    """

    run: tyro.conf.Positional[Path]


def main() -> int:
    """The command line."""
    run = tyro.cli(Arguments).run
    return exit_status(lambda: print(run / "curves.png" if draw_curves(run) else MISSING))


if __name__ == "__main__":
    sys.exit(main())
