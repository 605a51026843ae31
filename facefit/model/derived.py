"""What follows from a face model alone and takes long to gather, kept for the next call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from facefit.model.records import FaceModel

_Result = TypeVar("_Result")


def kept(function: Callable[[FaceModel], _Result]) -> Callable[[FaceModel], _Result]:
    """A pure function of a model that keeps its last result, and gives it again for the same object: to
    compare models by their arrays would take as long.
    """
    last = None

    @functools.wraps(function)
    def known(model: FaceModel) -> _Result:
        nonlocal last
        before = last  # read once: other threads may call
        if before is None or before[0] is not model:
            last = before = model, function(model)
        return before[1]

    return known
