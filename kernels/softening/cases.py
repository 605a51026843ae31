"""Settings for the tests and benchmarks of soft blending: sigma scaled to the size of a mesh's triangles."""

from __future__ import annotations

import numpy as np
from facefit_kernels.rasterization.cases import Case

FRAGMENTS = 8
GAMMA = 1e-4
# Of the mean area of the triangles in the picture: the largest with which a closed mesh does not swell.
SHARE = 0.005


def sigma_for(case: Case) -> float:
    """Square pixels: a two-hundredth of the mean area of the triangles in the picture."""
    half = np.array([case.size[1], case.size[0]]) / 2
    corner = (case.vertices_clip[:, :2] / case.vertices_clip[:, 3:] * half)[case.faces]
    along, across = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    areas = 0.5 * np.abs(along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0])
    return float(SHARE * areas.mean())
