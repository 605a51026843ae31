"""A model of a few hundred vertices and a fit of it by hand, for tests that need no real face."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from facefit.fit.result import Fit, FittedView
from facefit.model import FaceModel, SurfacePoints

SIDE = 12  # vertices along each edge of the curved sheet that stands for a face
REGIONS = ("skin", "lips", "eyes", "brows", "ears", "neck", "scalp", "inner")


def tiny_model(seed: int = 0) -> FaceModel:
    """A sheet of 160 x 200 mm, bulging towards z, with 5 identity, 3 expression and 2 albedo components."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE))
    x, y = (u.ravel() - 0.5) * 160, (v.ravel() - 0.5) * 200
    mean = np.stack([x, y, 90 - x**2 / 120 - y**2 / 300], 1).astype(np.float32)
    corner = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1])
    )
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32)

    def basis(count: int, size: float):
        return jnp.asarray(rng.normal(0, size, (count, len(mean), 3)), jnp.float32)

    def points(count: int) -> SurfacePoints:
        face = rng.choice(len(faces), count).astype(np.int32)
        return SurfacePoints(jnp.asarray(face), jnp.asarray(rng.dirichlet([1, 1, 1], count), jnp.float32))

    regions = {name: jnp.full(len(mean), float(name == "skin"), jnp.float32) for name in REGIONS}
    return FaceModel(
        mean=jnp.asarray(mean),
        identity_basis=basis(5, 2.0),
        expression_basis=basis(3, 1.0),
        faces=jnp.asarray(faces),
        uv=jnp.asarray(np.stack([u.ravel(), v.ravel()], 1), jnp.float32),
        uv_faces=jnp.asarray(faces),
        albedo_mean=jnp.full((len(mean), 3), 0.4, jnp.float32),
        albedo_basis=basis(2, 0.02),
        landmarks68=points(68),
        landmarks468=points(468),
        landmark_sigma468=jnp.full(468, 0.02, jnp.float32),
        regions=regions,
        name="tiny",
        expression_names=("jawOpen", "mouthSmileLeft", "mouthSmileRight"),
        licence="made by a test",
    )


def tiny_fit(
    files: tuple[str, ...] = ("a.jpg", "b.jpg"), size: tuple[int, int] = (240, 200), seed: int = 0
) -> Fit:
    """A fit of `tiny_model` to photographs of `size` (H, W), with awkward numbers in it."""
    rng = np.random.default_rng(seed)
    ambient = np.zeros((9, 3), np.float32)
    ambient[0] = 0.9
    views = tuple(
        FittedView(
            file=file,
            expression=rng.normal(0, 0.3, 3).astype(np.float32),
            rotation=rng.normal(0, 0.1, 3).astype(np.float32),
            translation=np.asarray([3.25, -2.0, 900 + rng.normal()], np.float32),
            focal_px=float(np.float64(800) + rng.random()),
            center=np.asarray([size[1] / 2, size[0] / 2], np.float32),
            size=size,
            lighting=ambient,
            landmarks68=rng.uniform(0, 200, (68, 2)).astype(np.float32),
            landmark_rmse_px=float(rng.random()),
            landmark_rmse_percent=float(rng.random()),
            energies={"landmarks": float(rng.random()), "photometric": float(rng.random()) / 3},
        )
        for file in files
    )
    identity, albedo = rng.normal(size=5).astype(np.float32), rng.normal(size=2).astype(np.float32)
    report = {"preset": "default", "model": "tiny", "seconds": {"fit": 0.1}, "landmark_rmse_px": 1.0 / 3.0}
    return Fit(tiny_model(), identity, albedo, views, report)
