"""What every exporter asks of its arrays before it writes a file."""

from __future__ import annotations

import numpy as np


def require_finite(values: np.ndarray, what: str) -> None:
    """Raises ValueError, naming `what`, where a value is not a finite number."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"{what}: {int((~np.isfinite(values)).sum())} values are not finite; nothing was written"
        )


def require_triangles(faces: np.ndarray, count: int, what: str) -> None:
    """Raises ValueError, naming `what`, unless `faces` is (F, 3) with indices below `count`."""
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"{what}: must be (F, 3), not {faces.shape}")
    if faces.size and (faces.min() < 0 or faces.max() >= count):
        raise ValueError(f"{what}: an index lies outside 0..{count - 1}")
