"""Contact sheets of the open face model: random faces, every expression, the mean with its landmarks."""

from __future__ import annotations

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from facefit.color import linear_to_srgb
from facefit.model.pigment import PigmentBounds
from facefit.model.records import FaceModel
from facefit.model.transfer import positions
from facefit.render.camera import directions_to_camera, project, to_camera
from facefit.render.lighting import shade
from facefit.render.mesh import vertex_normals
from facefit.render.renderer import render

DISTANCE = 1000.0
LIGHT = np.zeros((9, 3), np.float32)
LIGHT[0], LIGHT[1], LIGHT[2], LIGHT[3], LIGHT[5] = 0.85, -0.24, -0.40, 0.16, 0.10


@jax.jit
def _draw(vertices, albedo, faces, yaw, focal):
    rotation = jnp.stack([0.0 * yaw, yaw, 0.0 * yaw])
    middle = jnp.asarray([0.0, -12.0, 45.0])
    translation = jnp.asarray([0.0, 0.0, DISTANCE]) - to_camera(middle, rotation, jnp.zeros(3))
    camera = to_camera(vertices, rotation, translation)
    normals = directions_to_camera(vertex_normals(vertices, faces), rotation)
    matrix = jnp.stack(
        [
            jnp.stack([focal, 0.0 * focal, SIDE / 2 + 0 * focal]),
            jnp.stack([0.0 * focal, focal, SIDE / 2 + 0 * focal]),
            jnp.asarray([0.0, 0.0, 1.0]),
        ]
    )
    colors = jnp.clip(shade(jnp.clip(albedo, 0.0, 1.0), normals, jnp.asarray(LIGHT)), 0.0, 1.0)
    drawn = render(camera, colors, faces, matrix, (SIDE, SIDE))
    picture = drawn.image + (1.0 - drawn.coverage[..., None]) * 0.18
    return picture, matrix, rotation, translation


SIDE = 480


def picture(
    model: FaceModel,
    vertices: np.ndarray,
    albedo: np.ndarray,
    yaw: float = 0.0,
    side: int = 240,
    span: float = 270.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One head in the sheet's light, BGR bytes (side, side, 3), and its camera (matrix, rotation,
    translation).

    Args:
        yaw: degrees, positive turns the face to the picture's right. span: millimetres across the picture.
    """
    focal = jnp.float32(SIDE * DISTANCE / span)
    linear, matrix, rotation, translation = _draw(
        jnp.asarray(vertices, jnp.float32),
        jnp.asarray(albedo, jnp.float32),
        model.faces,
        jnp.float32(np.radians(-yaw)),
        focal,
    )
    srgb = np.rint(np.asarray(linear_to_srgb(np.clip(np.asarray(linear), 0.0, 1.0))) * 255).astype(np.uint8)
    small = cv2.resize(srgb[:, :, ::-1], (side, side), interpolation=cv2.INTER_AREA)
    return small, np.asarray(matrix), np.asarray(rotation), np.asarray(translation)


def grid(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size side by side, `columns` a row."""
    blank = np.zeros_like(pictures[0])
    pictures = pictures + [blank] * (-len(pictures) % columns)
    return np.vstack([np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)])


def random_faces(model: FaceModel, number: int = 24, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Faces with coefficients from the prior, turned a little this way and that."""
    rng, pigments = np.random.default_rng(seed), PigmentBounds.of(model)
    shown = []
    for i in range(number):
        z = spread * rng.standard_normal(model.identity_basis.shape[0])
        a = pigments.nearest(spread * rng.standard_normal(model.albedo_basis.shape[0]))
        vertices = np.asarray(model.mean) + np.tensordot(z, np.asarray(model.identity_basis), 1)
        albedo = np.asarray(model.albedo_mean) + np.tensordot(a, np.asarray(model.albedo_basis), 1)
        shown.append(picture(model, vertices, albedo, (0.0, 35.0, -25.0)[i % 3], 300)[0])
    return grid(shown, 6)


def all_expressions(model: FaceModel) -> np.ndarray:
    """Every expression at weight one on the mean face."""
    shown = []
    for name, offset in zip(model.expression_names, np.asarray(model.expression_basis), strict=True):
        tile = picture(
            model, np.asarray(model.mean) + offset, np.asarray(model.albedo_mean), 15.0, 220, 190.0
        )[0].copy()
        cv2.putText(tile, name, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
        shown.append(tile)
    return grid(shown, 9)


def mean_and_landmarks(model: FaceModel) -> np.ndarray:
    """The mean from three sides: plain, with the 68 points, with the 468 points."""
    rows = []
    for points in (None, model.landmarks68, model.landmarks468):
        for yaw in (0.0, 45.0, 85.0):
            tile, matrix, rotation, translation = picture(
                model, model.mean, model.albedo_mean, yaw, 480, 230.0
            )
            tile = np.ascontiguousarray(tile)
            if points is not None:
                places = jnp.asarray(positions(model, points), jnp.float32)
                for x, y in np.asarray(project(to_camera(places, rotation, translation), matrix)):
                    cv2.circle(tile, (int(x), int(y)), 2, (80, 255, 80), -1, cv2.LINE_AA)
            rows.append(tile)
    return grid(rows, 3)


def write_sheets(model: FaceModel, path: Path) -> None:
    """Write `path` (24 random faces), and beside it PATH.mean.png and PATH.expressions.png."""
    cv2.imwrite(str(path), random_faces(model))
    cv2.imwrite(str(path.with_suffix(".mean.png")), mean_and_landmarks(model))
    cv2.imwrite(str(path.with_suffix(".expressions.png")), all_expressions(model))
