"""Landmark files of the user: every format reads the same points, and what is no landmark file is refused by
name.
"""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from facefit.errors import InputError
from facefit.photo.landmark_files import check_inside, read_landmarks

POINTS = np.random.default_rng(0).uniform(10, 500, (68, 2)).round(3)


def write_pts(path, points):
    rows = "\n".join(f"{x} {y}" for x, y in points)
    path.write_text(f"version: 1\nn_points:  {len(points)}\n{{\n{rows}\n}}\n")


def test_the_formats_agree_and_first_pixel_has_its_centre_at_a_half(tmp_path):
    write_pts(tmp_path / "a.pts", POINTS)
    np.save(tmp_path / "a.npy", POINTS)
    (tmp_path / "a.json").write_text(json.dumps(POINTS.tolist()))
    (tmp_path / "b.json").write_text(json.dumps({"points": POINTS.tolist(), "units": "px"}))
    for name in ("a.pts", "a.npy", "a.json", "b.json"):
        np.testing.assert_allclose(read_landmarks(tmp_path / name), POINTS + 0.5, atol=1e-4)


def test_dense_points_keep_their_depth_unshifted(tmp_path):
    dense = np.random.default_rng(1).uniform(10, 500, (468, 3)).astype(np.float32)
    np.save(tmp_path / "dense.npy", dense)
    np.testing.assert_allclose(read_landmarks(tmp_path / "dense.npy"), dense + [0.5, 0.5, 0], atol=1e-4)


@pytest.mark.parametrize(
    "name, content",
    [
        ("short.pts", b"version: 1\nn_points: 2\n{\n1 2\n3 4\n}\n"),
        ("count.pts", b"version: 1\nn_points: 68\n{\n1 2\n3 4\n}\n"),
        ("ragged.pts", b"{\n1 2\n3\n}\n"),
        ("words.pts", b"no points here"),
        ("broken.json", b'{"points": [[1, 2'),
        ("other.json", b'{"landmarks": []}'),
        ("nan.json", json.dumps([[float("nan"), 1.0]] * 68).encode()),
        ("text.npy", b"not an array"),
        ("pickle.npy", pickle.dumps({"a": 1})),
        ("points.csv", b"1,2"),
        ("empty.json", b""),
    ],
)
def test_what_is_no_landmark_file_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_landmarks(path)


def test_a_pickled_array_is_never_unpickled(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="object.npy"):
        read_landmarks(tmp_path / "object.npy")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such landmark file"):
        read_landmarks(tmp_path / "gone.pts")


def test_points_of_another_picture_or_in_fractions_are_refused():
    with pytest.raises(InputError, match="outside"):
        check_inside("a.pts", POINTS + 1000, (640, 480))
    with pytest.raises(InputError, match="fractions"):
        check_inside("a.pts", POINTS / 500, (640, 480))
    check_inside("a.pts", POINTS, (640, 640))
