"""Meshes for the tests and benchmarks of vertex normals."""

from __future__ import annotations

import numpy as np
from facefit_kernels.rasterization.cases import ball


def bumpy_ball(rings: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of a closed mesh of about 2 rings^2 triangles."""
    return ball(rings, rings, 0.2)
