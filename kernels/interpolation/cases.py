"""Named sizes for the tests and benchmarks of interpolation: the meshes of rasterization with attributes."""

from __future__ import annotations

import numpy as np
from facefit_kernels.rasterization.cases import SIZES, Case, ball_case

CHANNELS: tuple[int, ...] = (1, 3, 16)


def attributes(case: Case, channels: int, seed: int = 0) -> np.ndarray:
    """(V, channels) float32 values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (len(case.vertices_clip), channels)).astype(np.float32)


def named(name: str) -> Case:
    """The case of that name; see `rasterization.cases.SIZES`."""
    return ball_case(*SIZES[name])
