"""What a training run writes for people: JSON lines, curves, TensorBoard, pictures, a line of progress."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jax
import numpy as np

from experiments.curves import MISSING, draw_curves
from experiments.evaluate_encoder import known_faces
from experiments.geometry_picture import geometry_picture
from facefit.encoder.batch import Batch
from facefit.encoder.coefficients import Coefficients
from facefit.encoder.losses import draw, project_landmarks
from facefit.encoder.surface import EncoderSurface
from facefit.encoder.training import Report
from facefit.encoder.validation import evaluate
from facefit.export.obj import write_png
from facefit.model import FaceModel

_EVERY = 20  # steps between two lines of progress
_SHOWN = 6  # faces of each kind in a picture
_KNOWN = 4  # of them with their geometry
_TOLD = ("photometric", "landmarks", "neutral", "points", "random_faces")  # terms in a line of progress


class Log:
    """log.jsonl (a line a step and one an evaluation), curves.png, TensorBoard's files, and pictures/."""

    def __init__(self, folder: Path, start: int, steps: int):
        """
        Args:
            start: steps made before; what the log says beyond them was lost with the process that wrote it,
                and is taken out.
            steps: in all.
        """
        self._folder, self._start, self._steps = folder, start, steps
        path = folder / "log.jsonl"
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= start:
                        kept.append(line)
                except (ValueError, KeyError):
                    continue  # cut off when the process was killed
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._lines = path.open("a", encoding="utf-8")
        try:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        except ImportError:
            print("tensorboardX is not installed: log.jsonl only. pip install 'facefit[train]' adds it.")
            self._board = None
        self._told = False
        self._began = self._last = time.monotonic()
        self._waited = 0.0

    def step(self, step: int, report: Report, waited: float, photographs: int) -> None:
        """Notes a step: its terms, and how long it waited for data."""
        now = time.monotonic()
        self._waited += waited
        terms = {name: float(value) for name, value in sorted(report.terms.items())}
        figures = {"total": float(report.total), "gradient_norm": float(report.gradient_norm)} | terms
        times = {"seconds": round(now - self._last, 4), "waited": round(waited, 4)}
        self._write({"step": step} | figures | times)
        self._last = now
        if step % _EVERY and step != self._steps:
            return
        if self._board:
            for name, value in figures.items():
                self._board.add_scalar(f"train/{name}", value, step)
        made, spent = step - self._start, now - self._began
        left = (self._steps - step) * spent / made
        listed = "  ".join(f"{name} {terms[name]:.3g}" for name in _TOLD if name in terms)
        speed, waiting = made * photographs / spent, 100 * self._waited / spent
        print(
            f"step {step}/{self._steps}  loss {figures['total']:.3f}  {listed}  {speed:.1f} photographs/s  "
            f"waiting {waiting:.0f} %  {_duration(left)} left",
            flush=True,
        )

    def evaluate(
        self,
        step: int,
        size: int,
        model: FaceModel,
        surface: EncoderSurface,
        predict,
        held_out: dict[str, list[Batch]],
    ) -> None:
        """Measures and draws held-out samples of each kind, and the curves until now."""
        for kind, batches in held_out.items():
            figures = evaluate(model, surface, predict, batches, size)
            self._write({"step": step, "evaluation": kind} | figures)
            listed = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            print(f"step {step}  held-out {kind}: {listed}", flush=True)
            if self._board:
                for name, value in figures.items():
                    self._board.add_scalar(f"{kind}/{name}", value, step)
            if batches:
                image = picture(surface, predict(batches[0].image, batches[0].dense), batches[0], size)
                self._picture(kind, step, image)
            known = known_faces(batches, predict, _KNOWN)
            if known is not None:
                image = geometry_picture(model, np.asarray(surface.frontal), *known)
                self._picture("geometry" if kind == "labelled" else f"geometry_{kind}", step, image)
        if not draw_curves(self._folder) and not self._told:
            print(MISSING)
            self._told = True
        self._last = time.monotonic()

    def _picture(self, name: str, step: int, image: np.ndarray) -> None:
        folder = self._folder / "pictures"
        folder.mkdir(exist_ok=True)
        write_png(folder / f"{name}_{step:07d}.png", image)
        if self._board:
            self._board.add_image(f"{name}/faces", image, step, dataformats="HWC")

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        if self._board:
            self._board.close()

    def _write(self, values: dict) -> None:
        self._lines.write(json.dumps(values) + "\n")
        self._lines.flush()


_draw = jax.jit(jax.vmap(draw, in_axes=(None, 0, None)), static_argnums=2)


def picture(surface: EncoderSurface, found: Coefficients, batch: Batch, size: int) -> np.ndarray:
    """Faces side by side: photograph; the prediction drawn over it; landmarks, given green, predicted red."""
    some = jax.tree.map(lambda leaf: np.asarray(leaf)[:_SHOWN], found)
    drawn = _draw(surface, some, size)
    points = np.asarray(project_landmarks(surface, some, size))
    columns = []
    for k in range(len(points)):
        photo = np.asarray(batch.image[k])
        cover = np.clip(np.asarray(drawn.coverage[k]), 0, 1)[..., None]
        over = photo * (1 - cover) + np.clip(np.asarray(drawn.image[k]), 0, 1) * cover
        marked = np.repeat(np.repeat(photo, 2, 0), 2, 1)
        for places, color in ((np.asarray(batch.landmarks[k]), (0, 1, 0)), (points[k], (1, 0, 0))):
            column, row = np.clip((2 * places).astype(int), 0, 2 * size - 1).T
            marked[row, column] = color
        large = [np.repeat(np.repeat(part, 2, 0), 2, 1) for part in (photo, over)]
        columns.append(np.concatenate([*large, marked], 0))
    return np.round(255 * np.clip(np.concatenate(columns, 1), 0, 1)).astype(np.uint8)


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
