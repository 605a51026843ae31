"""How well an albedo basis explains persons it was not learned from, and what it looks like."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.open_face import sheets
from experiments.open_face.color_solver import held_out
from experiments.open_face.observed_colors import SeenPixels, spread_over_face
from facefit.energy import regions
from facefit.model import FaceModel

_STEPS = 8  # of the solver; more change nothing
_GROUPS = 4


class Errors(NamedTuple):
    """Of one basis on held-out pixels.

    Attributes:
        rms: sRGB, over the three channels, all persons together. robust: mean penalty of a pixel.
        brows_and_lips: the rms there. groups: the rms by quarters of the persons, darkest skin first.
        tone: mean albedo of the skin as solved, by the same quarters, linear RGB, (4, 3).
    """

    rms: float
    robust: float
    brows_and_lips: float
    groups: Float[np.ndarray, "4"]
    tone: Float[np.ndarray, "4 3"]


def errors(model: FaceModel, basis: Float[np.ndarray, "A V 3"], lighting, pixels: SeenPixels) -> Errors:
    """Solves albedo and light of every person on half of the pixels and measures on the other half, both
    ways.

    Args:
        model: the visible part, for the mean and the regions. basis: of its vertices.
        lighting: where to start from, (N, 9, 3).
    """
    some = jnp.asarray(spread_over_face(model))
    hair_and_lips = np.maximum(regions.region(model, "brows"), regions.region(model, "lips")) > 0.3
    counted = np.stack([np.ones(len(hair_and_lips)), hair_and_lips])
    found = held_out(
        model.albedo_mean,
        jnp.asarray(basis, jnp.float32),
        some,
        jnp.asarray(counted, jnp.float32),
        jnp.asarray(lighting, jnp.float32),
        pixels,
        _STEPS,
    )
    squared = np.asarray(found.squared[:, 0])
    skin = (regions.photometric_weight(model) > 0.9) & ~hair_and_lips
    albedo = np.asarray(model.albedo_mean)[skin].mean(0) + np.asarray(found.found.albedo) @ (
        np.asarray(basis)[:, skin].mean(1)
    )
    quarters = np.array_split(np.argsort(_brightness(pixels)), _GROUPS)
    return Errors(
        rms=float(np.sqrt(squared.mean())),
        robust=float(np.asarray(found.robust[:, 0]).mean()),
        brows_and_lips=float(np.sqrt(np.asarray(found.squared[:, 1]).mean())),
        groups=np.array([np.sqrt(squared[group].mean()) for group in quarters]),
        tone=np.array([albedo[group].mean(0) for group in quarters]),
    )


def _brightness(pixels: SeenPixels) -> Float[np.ndarray, " N"]:
    """Median green of the pixels that show skin: how light a person looks, whatever the model says."""
    color, weight = np.asarray(pixels.seen.color), np.asarray(pixels.seen.weight)
    return np.array([np.median(c[w > 0.5, 1]) if (w > 0.5).any() else 0.0 for c, w in zip(color, weight)])


def line(name: str, found: Errors) -> str:
    """One row of the table."""
    groups = " ".join(f"{value:.4f}" for value in found.groups)
    return f"{name:28s} {found.rms:.4f}  {found.robust:.3f}  {found.brows_and_lips:.4f}  {groups}"


HEAD = f"{'held-out pixels, sRGB':28s} rms     robust  brows,lips  quarters, darkest skin first"


def tones(found: Errors) -> str:
    """The solved skin colours as text, sRGB bytes."""
    from facefit.color import linear_to_srgb

    return "; ".join(
        " ".join(f"{int(v)}" for v in np.rint(255 * np.asarray(linear_to_srgb(tone)))) for tone in found.tone
    )


def components_sheet(model: FaceModel, first: int, number: int, sigma: float = 2.0) -> np.ndarray:
    """The mean face with each of `number` albedo components from `first` on at -sigma and +sigma."""

    def shown(albedo: np.ndarray) -> np.ndarray:
        return sheets.picture(model, model.mean, np.clip(albedo, 0.003, 1.0), 0.0, 240, 200.0)[0]

    mean, basis = np.asarray(model.albedo_mean), np.asarray(model.albedo_basis)
    tiles = []
    for offset in basis[first : first + number]:
        tiles += [shown(mean - sigma * offset), shown(mean + sigma * offset)]
    return sheets.grid(tiles, 8)


def write_sheets(old: FaceModel, new: FaceModel, first: int, number: int, path: Path) -> None:
    """Writes PATH (24 random faces of the new model), PATH.before.png (of the old one), PATH.mean.png and
    PATH.components.png."""
    cv2.imwrite(str(path), sheets.random_faces(new))
    cv2.imwrite(str(path.with_suffix(".before.png")), sheets.random_faces(old))
    views = [
        sheets.picture(model, model.mean, model.albedo_mean, yaw, 480, 230.0)[0]
        for model in (old, new)
        for yaw in (0.0, 35.0, 70.0)
    ]
    cv2.imwrite(str(path.with_suffix(".mean.png")), sheets.grid(views, 3))
    cv2.imwrite(str(path.with_suffix(".components.png")), components_sheet(new, first, number))
