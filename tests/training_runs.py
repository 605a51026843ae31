"""Small training runs in processes of their own, for tests that stop them and take them up again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from facefit.encoder import dataset

ROOT = Path(__file__).resolve().parent.parent
_LONGEST = 600.0  # seconds until a step is made: a process that hangs must not hang the test


def noise_data(folder: Path) -> Path:
    """A labelled data set of noise: 24 persons' photographs, two of them held out."""
    random, count, size = np.random.default_rng(0), 24, 64
    dataset.begin(folder, {"noise": True, "model": "open"})
    for index in range(count):
        image = random.integers(0, 255, (size, size, 3), np.uint8)
        dataset.write_sample(folder, index, image, np.full((size, size), 255, np.uint8))
    arrays = {
        "landmarks": size / 2 + size / 8 * random.normal(size=(count, 68, 2)),
        "landmark_weight": np.ones((count, 68)),
        "dense": size / 2 + size / 8 * random.normal(size=(count, 468, 3)),
        "identity": random.normal(size=(count, 130)),
        "expression": random.uniform(0, 0.3, (count, 52)),
        "albedo": random.normal(size=(count, 52)),
        "lighting": np.zeros((count, 9, 3)),
        "rotation": np.zeros((count, 3)),
        "translation": np.zeros((count, 3)),
        "focal": np.ones(count),
    }
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    arrays["subject"] = np.arange(count, dtype=np.int32)
    arrays["split"] = np.asarray([dataset.split_of(k) for k in range(count)], np.int8)
    arrays["source"] = np.asarray(["noise"] * count)
    dataset.finish(folder, {"kind": "synthetic", "size": size, "model": "open"}, arrays)
    return folder


def command(run: Path, data: Path, steps: int, *more: str) -> list[str]:
    """The training of `steps` steps in the folder `run`."""
    settings = {"labelled": data, "size": 32, "steps": steps, "landmark-steps": steps, "evaluate": 100}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "experiments.train_encoder", "smoke", "--run", str(run), *words, *more]


def train(run: Path, data: Path, steps: int, *more: str) -> subprocess.CompletedProcess:
    """Trains to the end."""
    words = command(run, data, steps, *more)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def curve(run: Path) -> dict[int, float]:
    """The loss of every step in the log; of a line that is being written, none."""
    found = {}
    if (run / "log.jsonl").exists():
        for text in (run / "log.jsonl").read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if "total" in line:
                found[line["step"]] = line["total"]
    return found


def train_and_kill(run: Path, data: Path, steps: int, after: int, wait: float) -> None:
    """Trains, with a checkpoint at every step, until `after` more steps are in the log and `wait` seconds
    have passed, and kills the process, wherever it is then.
    """
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(run, data, steps, "--minutes", "0"), cwd=ROOT, **silent)
    before, deadline = max(curve(run), default=0), time.monotonic() + _LONGEST
    while process.poll() is None and time.monotonic() < deadline:
        if max(curve(run), default=0) >= before + after:
            break
        time.sleep(0.02)
    time.sleep(wait)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def assert_same_curve(run: Path, unbroken: Path, steps: int) -> None:
    """The loss of every step is that of the run which was never stopped."""
    expected, found = curve(unbroken), curve(run)
    assert sorted(found) == sorted(expected) == list(range(1, steps + 1))
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()), rtol=1e-6)
