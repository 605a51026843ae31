"""Starts of a fit by name, other than landmarks. Fitting may not know who makes them (they lie above it or
beside it, see tests/test_layers.py): whoever does enters them here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facefit.errors import InputError

LANDMARKS = "landmarks"
# From the photographs of one person to a `facefit.fit.estimate.Estimate`; and who makes it for a model.
Estimator = Callable[[Sequence[Any]], Any]
Maker = Callable[[Any], Estimator]
_makers: dict[str, Maker] = {}


def enter(name: str, maker: Maker) -> None:
    """Makes a start known.

    Args:
        maker: from the model that is to be fitted to an estimator; raises an InputError where it has none for
            that model.
    """
    _makers[name] = maker


def names() -> tuple[str, ...]:
    """The starts there are, landmarks first."""
    return (LANDMARKS, *_makers)


def check(name: str) -> None:
    """Refuses a start that nobody entered.

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
    return None if name == LANDMARKS else _makers[name](model)
