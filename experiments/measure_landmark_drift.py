"""Measures how the Face Mesh network's mean error changes with the pose: `drift` in
facefit/model/landmark_errors.npz.

    python -m experiments.measure_landmark_drift PHOTO_FOLDER... [--model open] [--subjects 60] [-o FILE]

Random faces of the model are rendered from up to 75 degrees aside and 25 degrees above and below; what the
network errs by is regressed on the direction that the face is seen from, beyond what it errs by from the
front. On real persons less of that is true: in the photographs (those in which faces are turned tell most),
the mean face with free pose and expression is fitted, and what remains is regressed on the drift of the
renderings, term by term. The product is written. No single person's data enters the file, only seven shares.

Shipped: 60 subjects in 20 poses each, and 324 photographs of YouTube faces and of CC0 stock portraits, whose
shares are SHARES; without folders those are taken. Ten minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np

from facefit.correspondence import picture_intrinsics, sightings
from facefit.errors import PhotoError
from facefit.fit.settings import Settings
from facefit.fit.subject import fit_subject
from facefit.fit.surface import OVAL468
from facefit.model import at_points, find_model
from facefit.model.landmark_errors import TABLE, aspects
from facefit.model.npz import read_arrays, write_arrays
from facefit.photo import read_photograph
from facefit.photo.face_mesh import mirror_permutation
from facefit.rotations import matrix_from_axis_angle

POSES, YAW, PITCH, ROLL = 20, 75.0, 25.0, 8.0  # of every face shown; degrees to both sides
# Of x, y, xx, xy, yy, xxx, xxy (see `aspects`): how much of it photographs of real persons show.
SHARES = np.array([0.81, 0.85, 0.23, 0.42, 0.04, 0.53, 0.9])
FROZEN = Settings(photometric_steps=0, landmark_steps=10, identity_sigma=1e-3, depth_count=0.0)
RIGHT_EYE, LEFT_EYE = 33, 263
HALF_TURN = np.array([1.0, -1.0, -1.0])
FRONTAL, WIDEST = np.sin(np.radians(8)), np.sin(np.radians(55))  # of the photographs' sideways directions
OUTLIER = 0.15  # outer-eye distances


def upright(place, turn, translation, focal, seen, center):
    """Error of the points seen of a face, with the head upright, and what belongs to it.

    Args:
        place: the points on the model, (468, 3). turn, translation: of the face to the camera.
        seen: what the network saw, pixels, and depths where it is to be compared too, (468, 2 or 3).

    Returns:
        The errors in outer-eye distances, (468, 2 or 3); the direction to the camera in the model frame,
        (3,); and the points about the face's origin with the head upright, in outer-eye distances, (468, 3).
    """
    away = (place * HALF_TURN) @ turn.T
    camera = away + translation
    eyes = np.linalg.norm(place[RIGHT_EYE] - place[LEFT_EYE])
    scale = focal / translation[2]
    error = seen[:, :2] - (camera[:, :2] / camera[:, 2:] * focal + center)
    if seen.shape[1] == 3:
        depth = seen[:, 2] - camera[:, 2] * scale
        error = np.concatenate([error, (depth - np.median(depth))[:, None]], axis=1)
    roll = np.arctan2(-turn[0, 1], turn[1, 1])
    cos, sin = np.cos(roll), np.sin(roll)
    back = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    direction = -(translation / np.linalg.norm(translation)) @ turn * HALF_TURN
    columns = error.shape[1]
    return error @ back[:columns, :columns].T / (eyes * scale), direction, away @ back.T / eyes


def features(directions: np.ndarray) -> np.ndarray:
    """`aspects` of every direction, (N, 7)."""
    return np.stack([np.asarray(aspects(jnp.asarray(direction))) for direction in directions])


def rendered_drift(model, subjects: int, seed: int = 5) -> np.ndarray:
    """The drift on renderings of the model, (7, 468, 3)."""
    rng = np.random.default_rng(seed)
    poses = [
        (rng.uniform(-YAW, YAW), rng.uniform(-PITCH, PITCH), rng.uniform(-ROLL, ROLL)) for _ in range(POSES)
    ]
    seen = sightings(model, subjects, seed, poses)
    points = at_points(model, model.landmarks468)
    mean = np.asarray(points.mean) + (0 if model.landmark_offset468 is None else model.landmark_offset468)
    matrix = picture_intrinsics()
    errors, directions = [], []
    for n in np.flatnonzero(seen.score > 0.5):
        place = mean + np.tensordot(seen.identity[n], np.asarray(points.identity_basis), 1)
        turn = cv2.Rodrigues(seen.rotation[n].astype(np.float64))[0]
        both = np.concatenate([seen.pixels[n], seen.depth[n][:, None]], axis=1)
        error, direction, _ = upright(place, turn, seen.translation[n], matrix[0, 0], both, matrix[:2, 2])
        errors.append(error)
        directions.append(direction)
    errors, directions = np.array(errors), np.array(directions)
    # A network without a preferred side: every view counts as its mirror image too.
    errors = np.concatenate([errors, errors[:, mirror_permutation()] * [-1, 1, 1]])
    directions = np.concatenate([directions, directions * [-1, 1, 1]])
    flat = errors.reshape(len(errors), -1)
    known = np.concatenate([np.ones((len(flat), 1)), features(directions)], axis=1)
    spread = 1.48 * np.median(np.abs(flat - np.median(flat, axis=0)), axis=0)
    weight = np.ones(len(flat))
    for _ in range(8):
        found = np.linalg.lstsq(known * weight[:, None], flat * weight[:, None])[0]
        weight = (1 / (1 + ((flat - known @ found) / (3 * spread)) ** 2)).mean(1)
    before, after = (100 * np.sqrt((rest**2).mean()) for rest in (flat, flat - known @ found))
    print(f"{len(flat) // 2} renderings; rms in % of the eyes {before:.1f}, without the drift {after:.1f}")
    return found[1:].reshape(-1, 468, 3)


def shares(model, drift: np.ndarray, photographs) -> np.ndarray:
    """How much of each of the drift's terms the photographs show, (7,)."""
    points = at_points(model, model.landmarks468)
    mean = np.asarray(points.mean) + (0 if model.landmark_offset468 is None else model.landmark_offset468)
    rows = []
    for photograph in photographs:
        view = fit_subject([photograph], model, FROZEN).views[0]
        place = mean + np.tensordot(view.expression, np.asarray(points.expression_basis), 1)
        turn = np.asarray(matrix_from_axis_angle(view.rotation), np.float64)
        rows.append(
            upright(place, turn, view.translation, view.focal_px, photograph.landmarks468[:, :2], view.center)
        )
    front = np.median([error for error, direction, _ in rows if abs(direction[0]) < FRONTAL], axis=0)
    front = 0.5 * (front + front[mirror_permutation()] * [-1, 1])
    inner = np.ones(468, bool)
    inner[list(OVAL468)] = False
    products, right = np.zeros((7, 7)), np.zeros(7)
    for error, direction, (*place,) in rows:
        if abs(direction[0]) > WIDEST:
            continue
        near = inner & (np.sign(direction[0]) * mean[:, 0] > -15.0)
        x, y, z = np.array(place)[near].T
        one, none = np.ones_like(x), np.zeros_like(x)
        # What the pose explains is not looked at.
        pose = [(one, none), (none, one), (x, y), (-y, x), (z, none), (none, z)]
        base = np.linalg.qr(np.array([np.stack(pair, 1).ravel() for pair in pose]).T)[0]
        terms = (features(direction[None])[0][:, None, None] * drift)[:, near, :2].reshape(7, -1)
        rest = np.clip(error - front, -OUTLIER, OUTLIER)[near].ravel()
        terms = terms - terms @ base @ base.T
        products += terms @ terms.T
        right += terms @ (rest - base @ (base.T @ rest))
    return np.linalg.solve(products + 1e-6 * np.trace(products) * np.eye(7), right)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="photographs of real persons")
    parser.add_argument("--model", default="open")
    parser.add_argument("--subjects", type=int, default=60, help="random faces shown to the network")
    parser.add_argument("--limit", type=int, default=260, help="photographs of each folder")
    parser.add_argument("-o", "--out", type=Path, default=TABLE, help="table that holds the other errors")
    arguments = parser.parse_args()
    model = find_model(arguments.model)
    drift, share = rendered_drift(model, arguments.subjects), SHARES
    photographs = []
    for folder in arguments.folders:
        files = sorted(folder.rglob("*.jpg"))
        for file in files[:: max(1, len(files) // arguments.limit)]:
            try:
                photograph = read_photograph(str(file))
            except PhotoError as error:
                print(f"left out: {error}")
                continue
            if photograph.landmarks468 is not None:
                photographs.append(photograph)
    if photographs:
        share = shares(model, drift, photographs)
        print(f"{len(photographs)} photographs; shares {np.round(share, 2)}")
    drift = np.clip(share, 0, 1)[:, None, None] * drift
    write_arrays(read_arrays(arguments.out) | {"drift": drift.astype(np.float32)}, arguments.out)


if __name__ == "__main__":
    main()
