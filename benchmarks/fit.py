"""The main job's times: first-ever run, later run, fit in a warm process, five photographs, and peak memory.

The photograph is the shipped sample at 1000 pixels; the set of five is that photograph turned, scaled and lit
otherwise.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

SAMPLE = Path(__file__).resolve().parents[1] / "facefit" / "data" / "astronaut.jpg"
SIDE = 1000  # pixels


def run(smoke: bool = False) -> dict:
    """Seconds and MiB.

    Returns:
        first_run_s: `facefit fit` as a process of its own with an empty cache; later_run_s: the same again
            (median of two).
        help_s: `facefit --help`.
        peak_memory_mib: of a later run; five_peak_memory_mib: with five photographs.
        warm_call_s: `facefit.fit` in a process that has done it before, reading and detection included.
        warm_fit_s: of it the fit alone; warm_save_s: writing all outputs.
        five_...: the same for five photographs.
    """
    with tempfile.TemporaryDirectory(prefix="facefit-benchmark-") as folder:
        photos = make_photos(Path(folder))
        results = {} if smoke else _processes(Path(folder), photos)
        return results | _in_process(
            Path(folder), photos, repeats=1 if smoke else 3, preset="fast" if smoke else "default"
        )


def make_photos(folder: Path) -> list[Path]:
    """The sample at 1000 pixels, and four variants of it."""
    pixels = cv2.imread(str(SAMPLE))
    pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    photos = []
    for number, (degrees, scale, gain) in enumerate(
        [(0, 1.0, 1.0), (8, 0.9, 0.8), (-8, 1.1, 1.1), (4, 1.2, 0.9), (-4, 0.8, 1.0)]
    ):
        matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), degrees, scale)
        turned = cv2.warpAffine(pixels, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
        photos.append(folder / f"photo{number}.jpg")
        cv2.imwrite(
            str(photos[-1]), np.clip(turned * gain, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
    return photos


def _processes(folder: Path, photos: list[Path]) -> dict:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")
    }
    environment["FACEFIT_CACHE"] = str(folder / "cache")

    def command(*arguments: str) -> tuple[float, float]:
        start = time.perf_counter()
        print(f"  facefit {arguments[0]} ...", file=sys.stderr, flush=True)
        with open(folder / "said.txt", "w+") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "facefit", *arguments], env=environment, stdout=said, stderr=said
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                raise RuntimeError(f"facefit {' '.join(arguments)} failed:\n{said.read()}")
        return time.perf_counter() - start, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)

    one = ("fit", str(photos[0]), "-o", str(folder / "out"))
    first, _ = command(*one)
    later = [command(*one) for _ in range(2)]
    five = ("fit", *map(str, photos), "-o", str(folder / "out5"))
    five_first, _ = command(*five)
    five_later, five_memory = command(*five)
    return {
        "help_s": round(command("--help")[0], 2),
        "first_run_s": round(first, 2),
        "later_run_s": round(statistics.median(seconds for seconds, _ in later), 2),
        "peak_memory_mib": round(max(memory for _, memory in later)),
        "five_first_run_s": round(five_first, 2),
        "five_later_run_s": round(five_later, 2),
        "five_peak_memory_mib": round(five_memory),
    }


def _in_process(folder: Path, photos: list[Path], repeats: int, preset: str) -> dict:
    import facefit

    results = {}
    for name, files in (("warm", photos[:1]), ("five_warm", photos)):
        calls, fits, saves = [], [], []
        print(f"  {name}: {repeats + 1} fits ...", file=sys.stderr, flush=True)
        for _ in range(repeats + 1):  # the first one compiles
            start = time.perf_counter()
            fit = facefit.fit(files, preset=preset)
            calls.append(time.perf_counter() - start)
            fits.append(fit.report["seconds"]["fit"])
            start = time.perf_counter()
            fit.save(folder / name)
            saves.append(time.perf_counter() - start)
        results[f"{name}_call_s"] = round(statistics.median(calls[1:]), 3)
        results[f"{name}_fit_s"] = round(statistics.median(fits[1:]), 3)
        results[f"{name}_save_s"] = round(statistics.median(saves[1:]), 3)
    return results
