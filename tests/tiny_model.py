"""A small made-up head for tests that need a model but no model file."""

import numpy as np
import trimesh

from facefit.model import FaceModel, SurfacePoints
from facefit.model.npz import as_jax

NAMES = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight")


def tiny_model(seed: int = 0, subdivisions: int = 3) -> FaceModel:
    """An egg of 90 mm with a texture seam at the back, 4 identity, 3 expression and 2 albedo components."""
    random = np.random.default_rng(seed)
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    direction, faces = np.asarray(sphere.vertices, np.float32), np.asarray(sphere.faces, np.int32)
    mean = direction * np.float32([75, 110, 90])
    count = len(mean)
    corners = direction[faces]
    angle = np.arctan2(corners[..., 0], corners[..., 2])
    back = np.abs(angle).max(1) > np.pi / 2
    angle = np.where(back[:, None] & (angle < 0), angle + 2 * np.pi, angle)
    u = (angle + np.pi) / (3 * np.pi)
    v = np.arccos(-corners[..., 1].clip(-1, 1)) / np.pi
    coordinates = np.round(np.stack([u, v], -1).reshape(-1, 2), 6).astype(np.float32)
    uv, uv_index = np.unique(coordinates, axis=0, return_inverse=True)
    frequency = random.normal(size=(4, 3, 3)).astype(np.float32)
    identity = np.stack([np.sin(direction @ f) * 3 for f in frequency])
    expression = np.zeros((3, count, 3), np.float32)
    for k, centre in enumerate(([0, -0.6, 0.8], [0.4, 0.3, 0.85], [-0.4, 0.3, 0.85])):
        near = np.exp(-20 * ((direction - np.float32(centre)) ** 2).sum(1))
        expression[k, :, 1] = np.where(near > 0.01, -8 * near, 0)
    front = np.flatnonzero(mean[faces].mean(1)[:, 2] > 40)

    def points(number):
        weights = random.dirichlet([2, 2, 2], number).astype(np.float32)
        return SurfacePoints(random.choice(front, number).astype(np.int32), weights)

    zero = np.zeros(count, np.float32)
    regions = {name: zero for name in ("lips", "eyes", "brows", "ears", "neck", "scalp", "inner")}
    albedo = np.float32([0.45, 0.25, 0.18]) * (1 + 0.2 * np.sin(direction @ frequency[0]))
    return as_jax(
        FaceModel(
            mean=mean,
            identity_basis=identity,
            expression_basis=expression,
            faces=faces,
            uv=uv,
            uv_faces=uv_index.reshape(-1, 3).astype(np.int32),
            albedo_mean=albedo,
            albedo_basis=np.stack([albedo * -0.3, albedo * np.float32([0.1, -0.1, 0])]),
            landmarks68=points(68),
            landmarks468=points(468),
            landmark_sigma468=np.full(468, 0.03, np.float32),
            regions=regions | {"skin": zero + 1},
            name="tiny",
            expression_names=NAMES,
            licence="made up",
        )
    )
