"""Pictures and named sizes for the tests and benchmarks of texturing."""

from __future__ import annotations

import numpy as np

# (side of the picture, samples) by name.
SIZES: dict[str, tuple[int, int]] = {"smoke": (16, 500), "face 1k": (1024, 50_000), "bake 1k": (512, 1 << 20)}


def named(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random picture of three channels, coordinates (M, 2) a little beyond it, and levels (M,)."""
    rng = np.random.default_rng(seed)
    side, count = SIZES[name]
    picture = rng.random((side, side, 3), dtype=np.float32)
    coordinates = rng.uniform(-0.2, 1.2, (count, 2)).astype(np.float32)
    return picture, coordinates, rng.uniform(-0.5, np.log2(side) + 0.5, count).astype(np.float32)
