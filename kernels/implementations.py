"""Which implementation of the operations runs: the native library of JAX's default device where it is built,
else the reference.
"""

from __future__ import annotations

import functools
from typing import Literal

from facefit_kernels import library

Implementation = Literal["native", "reference"] | None

# The operations that the CUDA library has; the C++ library has all. "fragments" is `rasterize` with several
# fragments or a blur.
OPERATIONS_ON_CUDA = frozenset({"rasterize", "interpolate", "antialias", "draw", "vertex_normals"})


@functools.cache
def available(operation: str | None = None) -> tuple[str, ...]:
    """Names of the implementations that work in this process, best first: of one operation, or of any."""
    native = library.load() and (operation in (None, *OPERATIONS_ON_CUDA) or not library.on_cuda())
    return ("native", "reference") if native else ("reference",)


def resolve(implementation: Implementation, operation: str) -> str:
    """The implementation of an operation to run: `implementation` itself, or the best one for None.
    ValueError where it cannot run: who asks for one is not given another.
    """
    if implementation is None:
        return available(operation)[0]
    if implementation not in ("native", "reference"):
        raise ValueError(f"implementation must be 'native', 'reference' or None, got {implementation!r}")
    if implementation not in available(operation):
        why = f"the CUDA library has no {operation}" if library.load() else library.reason()
        raise ValueError(f"implementation 'native' does not work here: {why}; use 'reference' or None")
    return implementation
