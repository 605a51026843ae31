"""Run the benchmarks and print one JSON object: `python -m benchmarks [SUBJECT...] [--smoke] [--json FILE]`.

A subject is a module of this folder with a function `run(smoke: bool) -> dict`. Give a quiet machine: nothing
else should be running.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pkgutil
import platform
import sys
from pathlib import Path

import tyro

import benchmarks


@dataclasses.dataclass(frozen=True)
class Settings:
    """Run benchmarks.

    Attributes:
        subjects: names of modules here; all where none is given.
        smoke: the smallest sizes, once, to see that everything runs; the numbers mean nothing.
        json: file for the results, besides standard output.
    """

    subjects: tyro.conf.Positional[tuple[str, ...]] = ()
    smoke: bool = False
    json: Path | None = None


def subjects() -> list[str]:
    """Names of all benchmarks."""
    names = [
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    ]
    return [name for name in names if hasattr(importlib.import_module(f"benchmarks.{name}"), "run")]


def main(settings: Settings) -> int:
    """Runs the chosen subjects one after the other; status 2 for an unknown one."""
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
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "kernels": available()[0],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, prog="python -m benchmarks", config=(tyro.conf.OmitArgPrefixes,))))
