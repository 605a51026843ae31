"""`facefit models`: which face models there are, what is in them, and converting those of other projects."""

from __future__ import annotations

import sys
from pathlib import Path


def run_list() -> int:
    """Prints name and file of every model that can be used by name."""
    from facefit.model.store import list_models

    for name, path in list_models().items():
        print(f"{name}\t{path}")
    print("Any model file works too: facefit fit PHOTO -o OUT --model FILE.npz", file=sys.stderr)
    return 0


def run_info(name: str) -> int:
    """Prints the facts about one model, a line each."""
    from facefit.model.store import model_info

    for key, value in model_info(name).items():
        print(f"{key.replace('_', ' ')}: {_words(value)}")
    return 0


def run_convert(path: Path, output: Path) -> int:
    """Converts a model file or folder."""
    from facefit.model.store import convert

    convert(path, output, note=print)
    return 0


def _words(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value)
    return str(value)
