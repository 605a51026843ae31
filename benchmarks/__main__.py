"""Run the benchmarks and print one JSON object: `python -m benchmarks [SUBJECT...] [--smoke] [--json FILE]`.

A subject is a module of this folder with a function `run(smoke: bool) -> dict`. Give a quiet machine: nothing
else should be running. `--gate` compares ratios with the committed ones, `--table FILE` prints the README's
table from a result.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import os
import pkgutil
import platform
import subprocess
import sys
from pathlib import Path

import tyro

import benchmarks
from benchmarks.report import BASELINE, gate, table


@dataclasses.dataclass(frozen=True)
class Settings:
    """Run benchmarks.

    Attributes:
        subjects: names of modules here; all where none is given.
        smoke: the smallest sizes, once, to see that everything runs; the numbers mean nothing.
        json: file for the results, besides standard output.
        gate: exit with status 1 where a ratio is much worse than in benchmarks/baseline.json.
        table: print the README's table from this result of `--json` and run nothing.
    """

    subjects: tyro.conf.Positional[tuple[str, ...]] = ()
    smoke: bool = False
    json: Path | None = None
    gate: bool = False
    table: Path | None = None


def subjects() -> list[str]:
    """Names of all benchmarks."""
    names = [
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    ]
    return [name for name in names if hasattr(importlib.import_module(f"benchmarks.{name}"), "run")]


def main(settings: Settings) -> int:
    """Runs the chosen subjects one after the other; status 2 for an unknown one."""
    if settings.table:
        print(table(json.loads(settings.table.read_text())))
        return 0
    known = subjects()
    if unknown := set(settings.subjects) - set(known):
        print(
            f"no benchmark called {', '.join(sorted(unknown))}; there are: {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    results: dict = {"machine": machine()}
    for name in settings.subjects or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = importlib.import_module(f"benchmarks.{name}").run(settings.smoke)
    text = json.dumps(results, indent=1)
    print(text)
    if settings.json:
        settings.json.write_text(text + "\n")
    if settings.gate:
        worse = gate(results, json.loads(BASELINE.read_text()))
        print("\n".join(worse) or "gate: passed", file=sys.stderr)
        return 1 if worse else 0
    return 0


def machine() -> dict:
    """What the numbers depend on."""
    import jax
    from facefit_kernels import available

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {
            name: _version(name) for name in ("facefit", "jax", "jaxlib", "numpy", "deodr", "mitsuba")
        },
        "load": [round(load, 1) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "device": jax.devices()[0].device_kind,
        "kernels": available()[0],
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, prog="python -m benchmarks", config=(tyro.conf.OmitArgPrefixes,))))
