"""Fit the colour model of `facefit/photo/skin_color.npz`: mixtures of Gaussians over skin and over everything
else.

    python experiments/fit_skin_color.py FOLDER... -o facefit/photo/skin_color.npz

FOLDER holds photographs of faces (searched recursively; `--most` of each are taken, evenly spaced by name).
Skin is inside the Face Mesh oval without eyes, brows and mouth; the rest is what lies well outside it and not
below the chin (neck, hands and shoulders are skin too). Every photograph counts the same, and the photographs
are weighted so that six bands of skin lightness count the same, so that a set of mostly light-skinned people
does not make a model for light skin only.

Only the means, covariances and weights of the mixtures are kept: some hundred numbers, no picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from facefit.errors import FacefitError
from facefit.photo import read_photograph, skin

SAMPLES = 400  # pixels a photograph and class
BANDS = 6  # of skin lightness, equally populated after weighting
COMPONENTS = {"skin": 4, "rest": 8}


def samples(path: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Colours (YCbCr in [0, 1]) of skin and of the rest of one photograph, (SAMPLES, 3) each."""
    try:
        photograph = read_photograph(path)
    except FacefitError as error:
        print(error)
        return None
    pixels, points = photograph.pixels, photograph.landmarks468
    if np.ptp(pixels.astype(np.int16), axis=2).mean() < 4:
        return None  # a grey picture says nothing about colour
    inside = skin.face_mask(points, pixels.shape[:2]) > 0
    oval = cv2.convexHull(points[:, :2].astype(np.float32))[:, 0]
    larger = (oval - oval.mean(0)) * 1.5 + oval.mean(0)
    outside = np.ones(pixels.shape[:2], np.uint8)
    cv2.fillPoly(outside, [np.round(larger).astype(np.int32)], 0)
    outside[int(max(points[:, 1].mean(), 0)) :] = 0
    colors = skin.ycbcr(pixels)
    classes = [colors[inside], colors[outside > 0]]
    if min(len(c) for c in classes) < SAMPLES:
        return None
    return tuple(c[rng.choice(len(c), SAMPLES, replace=False)] for c in classes)


def fit_mixture(colors, weights, count, rng, steps=60):
    """Expectation maximisation for a weighted mixture of full Gaussians: weights (K,), means (K, 3),
    covariances (K, 3, 3).
    """
    means = colors[rng.choice(len(colors), count, replace=False, p=weights / weights.sum())]
    covariances = np.repeat(np.cov(colors.T, aweights=weights)[None], count, 0)
    shares = np.full(count, 1 / count)
    for _ in range(steps):
        log = skin.log_gaussians(colors, means, covariances) + np.log(shares)
        log -= log.max(1, keepdims=True)
        responsibility = np.exp(log)
        responsibility *= (weights / responsibility.sum(1))[:, None]
        mass = responsibility.sum(0) + 1e-9
        shares = mass / mass.sum()
        means = responsibility.T @ colors / mass[:, None]
        for k in range(count):
            centred = colors - means[k]
            covariances[k] = (centred * responsibility[:, k : k + 1]).T @ centred / mass[k] + np.eye(3) * 1e-4
    return shares, means, covariances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("facefit/photo/skin_color.npz"))
    parser.add_argument("--most", type=int, default=150, help="photographs a folder")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    taken = []
    for folder in arguments.folders:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, arguments.most).astype(int))]
        found = [s for s in (samples(p, rng) for p in chosen) if s is not None]
        print(f"{folder}: {len(found)} of {len(paths)} photographs")
        taken += found
    face, rest = (np.stack(c) for c in zip(*taken))
    lightness = np.median(face[..., 0], axis=1)
    band = np.digitize(lightness, np.linspace(*np.quantile(lightness, [0.02, 0.98]), BANDS + 1)[1:-1])
    weights = np.repeat(1 / np.bincount(band, minlength=BANDS)[band], SAMPLES)
    print("photographs by lightness band:", np.bincount(band, minlength=BANDS))
    model = {}
    for name, colors in (("skin", face), ("rest", rest)):
        mixture = fit_mixture(colors.reshape(-1, 3), weights, COMPONENTS[name], rng)
        parts = zip(("share", "mean", "covariance"), mixture)
        model.update({f"{name}_{part}": values.astype(np.float32) for part, values in parts})
    np.savez_compressed(arguments.output, **model)
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes from {len(taken)} photographs")


if __name__ == "__main__":
    main()
