"""Measures how the Face Mesh network errs on renderings of known faces: facefit/model/landmark_errors.npz.

    python -m experiments.measure_landmark_errors [--model open] [--subjects 40] [-o FILE]

Input: a face model (the embedded one) and nothing else. Two minutes on two cores. Prints how much of the
error moves together (about 93% of the variance in 24 modes) and what is left of each point (about 0.5% of the
eye distance), which is what the table holds. A fit that estimated the common modes beside the face, with
their measured size as prior, was tried and was worse: rendered faces mislead the network more than real ones,
and what such modes explain is then missing in the face.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from facefit.correspondence import picture_intrinsics, sightings
from facefit.model import at_points, find_model
from facefit.model.landmark_errors import TABLE
from facefit.model.npz import write_arrays

MODES = 24
RIGHT_EYE, LEFT_EYE = 33, 263
# Depths are rougher than places: they count half when modes are sought.
DEPTH_SHARE = 0.5


def errors(model, seen) -> np.ndarray:
    """Detected less true points, in outer-eye distances: (x, y, depth up to a constant), (S, 468, 3)."""
    points = at_points(model, model.landmarks468)
    matrix = picture_intrinsics()
    rows = []
    for n in range(len(seen.pixels)):
        place = np.asarray(points.mean) + np.tensordot(seen.identity[n], np.asarray(points.identity_basis), 1)
        turn = cv2.Rodrigues(seen.rotation[n].astype(np.float64))[0]
        camera = (place * [1, -1, -1]) @ turn.T + seen.translation[n]
        true = (camera @ matrix.T)[:, :2] / camera[:, 2:]
        depth = camera[:, 2] * matrix[0, 0] / seen.translation[n][2]
        error = np.concatenate([seen.pixels[n] - true, (seen.depth[n] - depth)[:, None]], axis=1)
        error[:, 2] -= error[:, 2].mean()
        unit = np.linalg.norm(camera[RIGHT_EYE] - camera[LEFT_EYE]) * matrix[0, 0] / seen.translation[n][2]
        rows.append(error / unit)
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="open")
    parser.add_argument("--subjects", type=int, default=40, help="random faces shown to the network")
    parser.add_argument("-o", "--out", type=Path, default=TABLE)
    arguments = parser.parse_args()
    model = find_model(arguments.model)
    seen = sightings(model, arguments.subjects, seed=7)
    error = errors(model, seen)[seen.score > 0.5]
    depth_bias = error[:, :, 2].mean(0)
    error = error - error.mean(0)
    # A point that the network lost on one rendering must not become a mode.
    spread = 1.4826 * np.median(np.abs(error), axis=0) + 1e-4
    error = np.clip(error, -4 * spread, 4 * spread)
    weight = np.array([1.0, 1.0, DEPTH_SHARE])
    flat = (error * weight).reshape(len(error), -1)
    left, values, right = np.linalg.svd(flat, full_matrices=False)
    rest = (flat - (left[:, :MODES] * values[:MODES]) @ right[:MODES]).reshape(error.shape) / weight
    # The modes were fitted to the same renderings: that many degrees of freedom are gone.
    sigma = np.sqrt((rest**2).sum(0) / max(len(rest) - MODES, 1))
    write_arrays(
        {
            "sigma": np.stack([np.sqrt((sigma[:, :2] ** 2).mean(1)), sigma[:, 2]], 1).astype(np.float32),
            "depth_bias": depth_bias.astype(np.float32),
        },
        arguments.out,
    )
    share = (values[:MODES] ** 2).sum() / (values**2).sum()
    total, left_over = (100 * np.sqrt((e**2).mean((0, 1))) for e in (error, rest))
    print(f"{len(error)} renderings; {MODES} modes hold {100 * share:.0f}% of the variance")
    print(f"rms in % of the eye distance (x, y, depth): {np.round(total, 2)}, left {np.round(left_over, 2)}")


if __name__ == "__main__":
    main()
