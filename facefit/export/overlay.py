"""The picture that shows how well a fit lies on its photograph: the photograph, clay, and a rendering."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facefit.color import LUMINANCE, is_grey
from facefit.export.views import PosedView, draw, from_bytes, head_crop, light_on, to_bytes
from facefit.model.records import FaceModel
from facefit.model.registration import vertex_normals

CLAY = np.float32([0.55, 0.55, 0.57])  # linear RGB
KEY_LIGHT = np.float32(
    [-0.35, -0.45, -0.82]
)  # towards the light, camera frame: above the camera's left shoulder
FOUND, FITTED = (255, 90, 60), (40, 220, 90)


def overlay(
    model: FaceModel,
    view: PosedView,
    albedo: Float[np.ndarray, "V 3"],
    landmarks: Float[np.ndarray, "L 2"] | None = None,
    detected: Float[np.ndarray, "L 2"] | None = None,
    size: int = 512,
) -> UInt8[np.ndarray, "P 3P 3"]:
    """Three square panels of the head side by side, sRGB.

    Left the photograph; in the middle the mesh as grey clay over it, with the fitted landmarks in green and
    the detected ones in red; right the mesh with its albedo in its light over it, without colours where
    the photograph has none.

    Args:
        albedo: linear RGB of every vertex.
        landmarks, detected: photograph pixels, first pixel's centre at (0.5, 0.5).
        size: side of a panel, pixels. The mesh is drawn at twice the size and shrunk.
    """
    crop = head_crop(view, face_vertices(model), size)
    photograph = from_bytes(crop.cut(view.pixels, outside=48))
    faces = np.asarray(model.faces)
    double = crop._replace(size=2 * size)
    surface = draw(
        view.vertices, faces, double.matrix() @ np.asarray(view.matrix, np.float32), (2 * size, 2 * size)
    )
    normals = vertex_normals(np.asarray(view.vertices, np.float64), faces).astype(np.float32)
    light = light_on(normals, view.lighting)
    clay = CLAY * (0.25 + 0.75 * np.clip(normals @ KEY_LIGHT, 0, 1))[:, None]
    skin = np.asarray(albedo) * light
    if is_grey(crop.cut(view.pixels, outside=48) / np.float32(255)):
        skin = np.repeat(skin @ LUMINANCE[:, None], 3, axis=1)
    colors = np.concatenate([clay, skin, np.ones((len(clay), 1))], axis=1).astype(np.float32)
    drawn = cv2.resize(surface.interpolate(colors, faces), (size, size), interpolation=cv2.INTER_AREA)
    cover = drawn[..., 6:]
    middle = to_bytes(photograph * (1 - 0.85 * cover) + 0.85 * drawn[..., :3])
    to_panel = crop.matrix()
    for points, color in ((detected, FOUND), (landmarks, FITTED)):
        if points is not None:
            _dots(
                middle, np.asarray(points) @ to_panel[:2, :2].T + to_panel[:2, 2], color, max(1, size // 220)
            )
    right = to_bytes(photograph * (1 - cover) + np.clip(drawn[..., 3:6], 0, None))
    return np.concatenate([to_bytes(photograph), middle, right], axis=1)


def face_vertices(model: FaceModel) -> np.ndarray:
    """Vertices of the face and ears, not the neck, scalp and inside: what a picture of the fit should show,
    (V,).
    """
    regions = {name: np.asarray(values) for name, values in model.regions.items()}
    outside = np.maximum(regions["neck"], regions["inner"])
    inside = np.maximum(regions["skin"], regions["ears"])
    return (
        (inside > 0.5) & (outside < 0.5)
        if ((inside > 0.5) & (outside < 0.5)).any()
        else np.ones(len(inside), bool)
    )


def _dots(picture: np.ndarray, points: np.ndarray, color: tuple[int, int, int], radius: int) -> None:
    """Draws antialiased dots; (0.5, 0.5) is the first pixel's centre."""
    for x, y in points:
        if -1e4 < x < 1e4 and -1e4 < y < 1e4:  # far outside, OpenCV's fixed point numbers overflow
            centre = (round((x - 0.5) * 16), round((y - 0.5) * 16))
            cv2.circle(picture, centre, radius * 16, color, -1, cv2.LINE_AA, 4)
