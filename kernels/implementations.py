"""Which implementation of the operations runs: the native library where it is built and on a CPU, else the
reference.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
from facefit_kernels import library

Implementation = Literal["native", "reference"] | None


@functools.cache
def available() -> tuple[str, ...]:
    """Names of the implementations that work in this process, best first."""
    return ("native", "reference") if library.load() and jax.default_backend() == "cpu" else ("reference",)


def resolve(implementation: Implementation) -> str:
    """The implementation to run: `implementation` itself, or the best one for None. ValueError where it
    cannot run.
    """
    if implementation is None:
        return available()[0]
    if implementation not in ("native", "reference"):
        raise ValueError(f"implementation must be 'native', 'reference' or None, got {implementation!r}")
    if implementation not in available():
        raise ValueError(
            f"implementation 'native' does not work here: {library.reason()}; use 'reference' or None"
        )
    return implementation
