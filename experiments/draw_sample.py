"""Draw the README's picture: the sample photograph, the fitted face over it, and the textured head from three
sides.

python -m experiments.draw_sample [OUT.jpg]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import cv2
import numpy as np

import facefit
from facefit.color import linear_to_srgb, srgb_to_linear
from facefit.export.overlay import overlay
from facefit.export.views import draw
from facefit.fit import outputs
from facefit.model.registration import vertex_normals
from facefit.photo import read_pixels

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "facefit" / "data" / "astronaut.jpg"
SIDE = 360  # pixels of a panel
DISTANCE = 1100.0  # mm, camera to head
WHITE = np.float32([1.0, 1.0, 1.0])


def turned_head(
    vertices: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    uv_faces: np.ndarray,
    texture: np.ndarray,
    degrees: float,
) -> np.ndarray:
    """The textured head turned about its vertical axis, softly lit, on white, (SIDE, SIDE, 3) uint8."""
    angle = math.radians(degrees)
    turn = np.array(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    centre = np.array([0.0, (vertices[:, 1].max() + vertices[:, 1].min()) / 2, 0.0])
    placed = ((vertices - centre) @ turn.T) * [1, -1, -1] + [0, 0, DISTANCE]
    height = np.ptp(vertices[:, 1])
    focal = 2 * SIDE * DISTANCE / (1.12 * height)
    matrix = np.array([[focal, 0, SIDE], [0, focal, SIDE], [0, 0, 1]], np.float32)
    surface = draw(placed.astype(np.float32), faces, matrix, (2 * SIDE, 2 * SIDE))

    # Corner attributes: every triangle has its own three texture coordinates.
    shown = surface.face >= 0
    where = np.zeros((*shown.shape, 2), np.float32)
    where[shown] = np.einsum("nk,nkc->nc", surface.barycentric[shown], uv[uv_faces[surface.face[shown]]])
    size = texture.shape[0]
    linear = np.asarray(srgb_to_linear(texture.astype(np.float32) / 255))
    skin = cv2.remap(linear, where[..., 0] * size - 0.5, (1 - where[..., 1]) * size - 0.5, cv2.INTER_LINEAR)

    normals = surface.interpolate(vertex_normals(placed, faces).astype(np.float32), faces)
    toward = np.array([-0.35, -0.5, -0.79])
    light = 0.75 + 0.75 * np.clip(normals @ toward, 0, 1)[..., None]
    picture = np.where(shown[..., None], skin * light, WHITE)
    picture = cv2.resize(picture.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.round(np.asarray(linear_to_srgb(picture)) * 255).astype(np.uint8)


def main(target: Path) -> None:
    """Fits the sample, draws, writes a JPEG."""
    fit = facefit.fit(SAMPLE)
    pixels, _ = read_pixels(SAMPLE)
    mesh = outputs.posed(fit, 0)
    panels = overlay(fit.model, outputs.posed_view(fit, 0, pixels, mesh), mesh.albedo, size=SIDE)
    model = fit.model
    texture = outputs.texture(fit, {fit.views[0].file: pixels})
    arrays = [np.asarray(values) for values in (model.faces, model.uv, model.uv_faces)]
    neutral = outputs.neutral(fit).vertices
    heads = [turned_head(neutral, *arrays, texture, degrees) for degrees in (-40, 0, 40)]
    picture = np.concatenate([panels, np.concatenate(heads, axis=1)], axis=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    print(f"{target}: {target.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "experiments" / "figures" / "astronaut.jpg")
