"""Measures where the Face Mesh network sees its points on an average person, for one face model.

    python -m experiments.calibrate_landmarks MODEL PHOTO_FOLDER... -o FILE [--limit 120]

The mean face with free pose and expression is fitted to the landmarks of many people; what is left on average
is no property of any of them but of the network and of the model's mean. It becomes the model's
`landmark_offset468`: without it every fit is pulled the same way (on RGB-D scans of real people the NoW
median then falls by 8%). Each folder is one source; photographs are taken evenly from it. No pixel and no
single person's data enters the file, only the mean of 468 points. FILE exists and gets the offsets added: a
model file, or the landmark table of ICT-FaceKit (facefit/model/ict_landmarks468.npz).

The points and offsets that are shipped come from an earlier run, with the points of the lower lip put right
since: those of a new run, `closed` included, gave 2-3% larger errors on RGB-D persons, and else the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from facefit.errors import PhotoError
from facefit.fit.settings import Settings
from facefit.fit.subject import fit_subject
from facefit.fit.surface import LIPS
from facefit.model import at_points, find_model
from facefit.model.landmark_errors import landmark_errors
from facefit.model.npz import read_arrays, write_arrays
from facefit.photo import read_photograph
from facefit.render.camera import to_camera
from facefit.rotations import matrix_from_axis_angle

# Identity stays at its mean; everything that differs between photographs is free.
FROZEN = Settings(photometric_steps=0, landmark_steps=10, identity_sigma=1e-3, depth_count=0.0)
DEPTH_WEIGHT = 0.3
# Pull of every offset towards zero, in photographs: points that few photographs show stay where they are.
PULL = 5.0


def offsets(model, photographs) -> tuple[np.ndarray, float]:
    """Mean offset of every point in the model frame, millimetres, (468, 3), and the rms of what remains."""
    points = at_points(model, model.landmarks468)
    depth_bias = np.asarray(landmark_errors().depth_bias)
    normal, right, remaining = np.tile(PULL * np.eye(3), (468, 1, 1)), np.zeros((468, 3)), []
    for photograph in photographs:
        view = fit_subject([photograph], model, FROZEN).views[0]
        place = np.asarray(points.mean) + np.tensordot(
            view.expression, np.asarray(points.expression_basis), 1
        )
        camera = np.asarray(to_camera(place, view.rotation, view.translation))
        scale = view.focal_px / camera[:, 2]  # pixels a millimetre
        seen = np.asarray(photograph.landmarks468)
        across = (seen[:, :2] - (camera[:, :2] * scale[:, None] + view.center)) / scale[:, None]
        unit = np.linalg.norm(seen[33] - seen[263])
        depth = (seen[:, 2] - depth_bias * unit) / scale - camera[:, 2]
        error = np.concatenate([across, (depth - np.median(depth))[:, None]], axis=1)
        turn = np.asarray(matrix_from_axis_angle(view.rotation)) @ np.diag([1.0, -1.0, -1.0])
        weight = 1.0 / (1.0 + (np.abs(error) / 5.0) ** 2) ** 2 * [1.0, 1.0, DEPTH_WEIGHT]
        normal += np.einsum("lk,ki,kj->lij", weight, turn, turn)
        right += np.einsum("lk,ki,lk->li", weight, turn, error)
        remaining.append((weight[:, :2] * across**2).mean())
    return np.linalg.solve(normal, right[..., None])[..., 0], float(np.sqrt(np.mean(remaining)))


def symmetric(offset: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Offsets averaged with their mirror images: people are symmetric on average, lights and poses may not
    be.
    """
    distance = np.linalg.norm(mean[:, None] - mean[None] * [-1.0, 1.0, 1.0], axis=-1)
    return 0.5 * (offset + offset[distance.argmin(1)] * [-1.0, 1.0, 1.0])


def closed(offset: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Offsets with which the points of the inner lips meet on the mean face, whose mouth is closed.

    On average the network sees mouths a little open, since some are; without this no mouth would close.
    """
    offset = offset.copy()
    for upper, lower in LIPS:
        gap = (mean + offset)[upper, 1] - (mean + offset)[lower, 1]
        offset[[upper, lower], 1] += np.array([-0.5, 0.5]) * gap
    return offset


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=120, help="photographs of each folder")
    arguments = parser.parse_args()
    photographs = []
    for folder in arguments.folders:
        files = sorted(folder.rglob("*.jpg"))
        for index in np.unique(np.linspace(0, len(files) - 1, min(arguments.limit, len(files))).astype(int)):
            try:
                photographs.append(read_photograph(files[index]))
            except PhotoError as error:
                print(error)
    model = find_model(arguments.model).replace(landmark_offset468=None)
    offset, remaining = offsets(model, photographs)
    mean = np.asarray(at_points(model, model.landmarks468).mean)
    offset = closed(symmetric(offset, mean), mean).astype(np.float32)
    arrays = read_arrays(arguments.out)
    arrays["landmark_offset468" if "format" in arrays else "offset"] = offset
    write_arrays(arrays, arguments.out)
    size = np.linalg.norm(offset, axis=1)
    print(
        f"{len(photographs)} photographs: offsets {size.mean():.2f} mm on average, up to {size.max():.2f}; "
        f"{remaining:.2f} mm remain"
    )


if __name__ == "__main__":
    main()
