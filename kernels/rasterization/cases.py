"""Meshes and named sizes for the tests and benchmarks of rasterization. NumPy, so that making one compiles
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """A mesh in clip coordinates, (V, 4) and (F, 3), and the picture's (H, W)."""

    vertices_clip: np.ndarray
    faces: np.ndarray
    size: tuple[int, int]


def ball(rings: int, segments: int, bumps: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A closed sphere of radius 1, wound counter-clockwise seen from outside; `bumps` makes it hide parts of
    itself.
    """
    polar = np.linspace(0, np.pi, rings + 1)[1:-1]
    azimuth = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    ring = np.stack(
        [
            np.sin(polar)[:, None] * np.cos(azimuth),
            np.cos(polar)[:, None] * np.ones(segments),
            np.sin(polar)[:, None] * np.sin(azimuth),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = np.concatenate([[[0.0, 1.0, 0.0]], ring, [[0.0, -1.0, 0.0]]])
    i, j = np.meshgrid(np.arange(rings - 2), np.arange(segments), indexing="ij")
    a, b = 1 + i * segments + j, 1 + i * segments + (j + 1) % segments
    body = np.concatenate(
        [
            np.stack([a, b, a + segments], -1).reshape(-1, 3),
            np.stack([b, b + segments, a + segments], -1).reshape(-1, 3),
        ]
    )
    around, last = np.arange(segments), 1 + (rings - 2) * segments
    top = np.stack([np.zeros(segments, int), 1 + (around + 1) % segments, 1 + around], -1)
    bottom = np.stack(
        [np.full(segments, len(vertices) - 1), last + around, last + (around + 1) % segments], -1
    )
    radius = 1 + bumps * np.sin(5 * vertices[:, :1]) * np.cos(4 * vertices[:, 1:2] + 1)
    return (vertices * radius).astype(np.float32), np.concatenate([top, body, bottom]).astype(np.int32)


def project(
    vertices, distance: float = 4.0, zoom: float = 3.5, near: float = 0.5, far: float = 20.0, numpy=np
):
    """Clip coordinates (V, 4) of vertices (V, 3) seen by a camera `distance` before the origin; numpy: the
    module.
    """
    x, y, z = vertices[:, 0], vertices[:, 1], vertices[:, 2] + distance
    depth = (far + near) / (far - near) * z - 2 * far * near / (far - near)
    return numpy.stack([zoom * x, zoom * y, depth, z], axis=-1).astype(np.float32)


def ball_case(triangles: int, size: tuple[int, int], bumps: float = 0.2) -> Case:
    """A bumpy ball of about `triangles` triangles that fills the picture."""
    rings = max(int(round((triangles / 2) ** 0.5)), 3)
    vertices, faces = ball(rings, rings, bumps)
    return Case(project(vertices, zoom=3.2), faces, size)


# Few shapes, so that many scenes need few compilations.
RANDOM_SIZES = ((17, 23), (1, 1), (40, 9), (32, 32))
_FAN_SIZES = ((8, 8), (70, 33), (21, 64))


def random_case(seed: int) -> Case:
    """A small scene of everything at once: tiny, huge, degenerate, equal, off-screen, behind and across the
    camera.
    """
    rng = np.random.default_rng(seed)
    size = RANDOM_SIZES[seed % len(RANDOM_SIZES)]
    count = 60
    w = np.where(rng.random(count) < 0.2, rng.normal(size=count), rng.uniform(0.3, 3.0, count))
    spread = rng.choice([0.2, 1.0, 3.0])
    vertices = np.concatenate(
        [rng.normal(size=(count, 2)) * spread, rng.uniform(-1.2, 1.2, (count, 1)), w[:, None]], axis=1
    )
    vertices[:, :3] *= np.abs(w[:, None])
    if seed % 3 == 0:  # corners on pixel centres and edges along rows, columns and diagonals
        grid = np.array([size[1], size[0]])
        vertices[:, :2] = (np.round((vertices[:, :2] + 1) * grid / 2 - 0.5) + 0.5) * 2 / grid - 1
        vertices[:, 2:] = np.stack([np.round(vertices[:, 2] * 2) / 2, np.ones(count)], 1)
    if seed % 7 == 0:
        vertices[rng.integers(count), rng.integers(4)] = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1e30])
    faces = rng.integers(0, rng.integers(3, count), (100, 3))
    faces[rng.random(len(faces)) < 0.1, 1] = faces[0, 0]
    faces[3] = faces[1][[1, 2, 0]]  # the same triangle twice
    faces[5, 2] = rng.choice([-1, count, 2**31 - 1])  # a vertex that does not exist
    return Case(vertices.astype(np.float32), faces.astype(np.int32), size)


def fan_case(seed: int) -> Case:
    """A plane cut into triangles without gap or overlap, larger than the picture; every pixel must be hit
    once.
    """
    rng = np.random.default_rng(seed)
    size, cells = _FAN_SIZES[seed % 3], 13
    line = np.linspace(-1.1, 1.1, cells + 1)
    y, x = np.meshgrid(line, line, indexing="ij")
    x, y = x + 0, y + 0
    jitter = 0.25 * 2.2 / cells * rng.uniform(-1, 1, (2, cells - 1, cells - 1))
    x[1:-1, 1:-1] += jitter[0]
    y[1:-1, 1:-1] += jitter[1]
    w = rng.uniform(0.5, 2.0, x.size)
    vertices = np.stack([x.ravel() * w, y.ravel() * w, 0 * w, w], axis=1)
    i, j = np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij")
    a = (i * (cells + 1) + j).ravel()
    faces = np.concatenate(
        [np.stack([a, a + 1, a + cells + 1], 1), np.stack([a + 1, a + cells + 2, a + cells + 1], 1)]
    )
    turned = rng.random(len(faces)) < 0.5
    faces[turned] = faces[turned][:, ::-1]
    return Case(vertices.astype(np.float32), faces.astype(np.int32), size)


# (triangles, size) by name: what the benchmarks time and the slow tests draw.
SIZES: dict[str, tuple[int, tuple[int, int]]] = {
    "smoke": (800, (64, 64)),
    "head 13k 224": (13_000, (224, 224)),
    "head 22k 224": (22_000, (224, 224)),
    "head 22k 512": (22_000, (512, 512)),
    "wide": (22_000, (256, 1024)),
}
