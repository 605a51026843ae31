"""Starts of a fit by name, other than landmarks. Who makes them lies above fitting or beside it (see
tests/test_layers.py), and is loaded only where one is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from facefit.errors import InputError

LANDMARKS = "landmarks"
# From the photographs of one person to a `facefit.fit.estimate.Estimate`.
Estimator = Callable[[Sequence[Any]], Any]
# The module and the function that makes an estimator for a model, or raises an InputError where it has none.
_MAKERS = {"encoder": ("facefit.prediction", "encoder_start")}


def names() -> tuple[str, ...]:
    """The starts there are, landmarks first."""
    return (LANDMARKS, *_MAKERS)


def check(name: str) -> None:
    """Refuses a start that does not exist.

    Raises:
        InputError: with those there are.
    """
    if name not in names():
        raise InputError(f"start {name!r} is unknown. Choose one of: {', '.join(names())}.")


def estimator(name: str, model: Any) -> Estimator | None:
    """Who estimates a face of this model; None for a start from landmarks.

    Raises:
        InputError: no such start, or it is not for this model.
    """
    check(name)
    if name == LANDMARKS:
        return None
    module, function = _MAKERS[name]
    return getattr(importlib.import_module(module), function)(model)
