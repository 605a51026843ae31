"""Named sizes for the tests and benchmarks of drawing: the meshes of rasterization with colours."""

from __future__ import annotations

import numpy as np
from facefit_kernels.rasterization.cases import SIZES, Case, ball_case


def colors(case: Case, seed: int = 0) -> np.ndarray:
    """(V, 3) float32 values that vary smoothly over the mesh."""
    direction = np.random.default_rng(seed).normal(size=(3, 3))
    return (0.5 + 0.4 * np.sin(case.vertices_clip[:, :3] @ direction + 1)).astype(np.float32)


def named(name: str) -> Case:
    """The case of that name; see `rasterization.cases.SIZES`."""
    return ball_case(*SIZES[name])
