"""The face descriptor is dlib's, its derivatives are right, and the loss on it is the paper's."""

import csv
import os
from pathlib import Path

import dlib
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dlib_file import random_file, real

from facefit.energy.identity_feature import cosine_similarity, identity_feature_loss
from facefit.errors import InputError
from facefit.photo import read_pixels, sample_path
from facefit.photo.descriptor import Descriptor, aligned_chip, chip_to_image, descriptors
from facefit.photo.dlib68 import model_file
from facefit.photo.dlib_weights import FILE, read_descriptor_weights

SHARED = Path(os.environ.get("FACEFIT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
YTF = SHARED / "data" / "train" / "ytf68"
installed = pytest.mark.skipif(model_file(FILE) is None, reason="face-recognition-models is not installed")
# The eyes' corners and the nose's base of the sample photograph's face, as dlib orders its five points.
FIVE = np.array([[258, 105], [236, 107], [197, 113], [215, 111], [231, 143]])


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return np.ascontiguousarray(read_pixels(sample_path())[0])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    data, places = random_file(0)
    path = tmp_path_factory.mktemp("dlib") / "weights.dat"
    path.write_bytes(data)
    return path, data, places


@jax.jit
def _describe(network, chips):
    return network(chips)


def dlib_chip(pixels, points) -> np.ndarray:
    points = dlib.points([dlib.point(int(x), int(y)) for x, y in points])
    return dlib.get_face_chip(pixels, dlib.full_object_detection(dlib.rectangle(0, 0, 9, 9), points))


def test_the_descriptor_is_what_dlib_computes_from_the_same_file(written, sample):
    chip = dlib_chip(sample, FIVE)
    noise = np.random.default_rng(0).integers(0, 256, chip.shape, np.uint8)
    judge = dlib.face_recognition_model_v1(str(written[0]))
    wanted = np.array([judge.compute_face_descriptor(image) for image in (chip, noise)])
    found = _describe(Descriptor(read_descriptor_weights(written[0])), jnp.stack([chip, noise]) / 255.0)
    assert np.abs(wanted).max() > 0.1 and np.abs(wanted[0] - wanted[1]).max() > 0.01
    np.testing.assert_allclose(found, wanted, atol=1e-4)  # float32 sums of up to 2304 terms, 29 layers deep


@installed
def test_the_published_weights_give_dlibs_descriptor_of_a_real_face(sample):
    chip = dlib_chip(sample, FIVE)
    wanted = np.array(dlib.face_recognition_model_v1(str(model_file(FILE))).compute_face_descriptor(chip))
    found = _describe(Descriptor(read_descriptor_weights()), jnp.stack([chip, chip[:, ::-1]]) / 255.0)
    np.testing.assert_allclose(found[0], wanted, atol=1e-4)
    # A mirrored face is still the same face: dlib counts less than 0.6 as one person.
    assert np.linalg.norm(found[0] - found[1]) < 0.6


@pytest.mark.parametrize("turn", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("scale", [0.4, 0.93, 1.7])
@pytest.mark.parametrize("count", [5, 68])
def test_the_chip_is_dlibs_but_for_its_cut_to_whole_numbers(sample, turn, scale, count):
    rng = np.random.default_rng(count)
    points = (rng.uniform(20, 110, (68, 2)) if count == 68 else FIVE - FIVE.mean(0) + 60) * scale
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # Near the photograph's corner, so that a part of the chip is black.
    points = np.round((points - points.mean(0)) @ matrix.T + [120, 90]).astype(int)
    chip = 255 * aligned_chip(sample[:300, :300] / np.float32(255), jnp.asarray(points + 0.5, jnp.float32))
    wanted = dlib_chip(np.ascontiguousarray(sample[:300, :300]), points)
    # dlib drops the fraction; a pixel on the photograph's very edge may fall on either side of it.
    apart = np.abs(np.asarray(chip) - 0.5 - wanted).max(-1)
    assert (apart > 0.51).sum() <= 2


def test_the_chips_frame_follows_the_landmarks():
    points = np.random.default_rng(1).uniform(30, 90, (68, 2)).astype(np.float32)
    matrix = np.asarray(chip_to_image(points))
    moved = chip_to_image(points + np.float32([3, -5]))
    np.testing.assert_allclose(moved[:, 2] - matrix[:, 2], [3, -5], atol=1e-4)
    np.testing.assert_allclose(matrix[0, 0], matrix[1, 1], rtol=1e-6)
    np.testing.assert_allclose(matrix[0, 1], -matrix[1, 0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"\(68, 2\) or \(5, 2\)"):
        chip_to_image(points[:60])


@pytest.mark.slow
def test_derivatives_through_chip_and_network_are_those_of_finite_differences(written):
    # The chip's black border, which would jump, stays outside, and the picture is smooth, so that bilinear
    # cells have nearly equal slopes: else a finite step does not see the derivative.
    y, x = np.mgrid[:220, :220] / 220
    image = np.stack([0.5 + 0.3 * np.sin(5 * x), 0.5 + 0.3 * np.cos(4 * y), 0.4 + 0.3 * x * y], -1)
    points = (FIVE - FIVE.mean(0) + 100).astype(float)
    target = np.random.default_rng(2).normal(size=(1, 128))
    rng = np.random.default_rng(3)

    # In float64, since float32 rounds the loss, near 0.9, by a hundredth of what a step changes.
    with jax.enable_x64(True):
        network = Descriptor(read_descriptor_weights(written[0]))
        network = jax.tree.map(lambda w: w.astype(jnp.float64), network)

        @jax.jit
        def loss(image, points):
            return identity_feature_loss(descriptors(network, image[None], points[None]), target)

        gradient = jax.jit(jax.grad(loss, (0, 1)))(image, points)
        for which, step in ((0, 1e-4), (1, 0.002)):
            # Along the gradient with some noise: a random direction alone is nearly orthogonal to it.
            own = np.asarray(gradient[which])
            direction = own / np.abs(own).max() + 0.1 * rng.normal(size=own.shape)
            moved = [step * direction if k == which else 0.0 for k in (0, 1)]
            ahead, behind = (loss(image + s * moved[0], points + s * moved[1]) for s in (1, -1))
            slope = (own * direction).sum()
            # Rectifiers and bilinear cells have kinks within the step.
            np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=0.01, err_msg=str(which))
            assert abs(slope) > 1e-4


def test_the_chips_derivatives_are_those_of_finite_differences():
    y, x = np.mgrid[:220, :220] / 220  # the chip's black border, which would jump, stays outside
    image = jnp.asarray(np.stack([np.sin(5 * x), np.cos(4 * y), x * y], -1), jnp.float32)
    points = jnp.asarray(FIVE - FIVE.mean(0) + 100.3, jnp.float32)
    weight = np.random.default_rng(5).uniform(size=(150, 150, 3)).astype(np.float32)

    @jax.jit
    def total(image, points):
        return jnp.sum(weight * aligned_chip(image, points))

    for_image, for_points = jax.jit(jax.grad(total, (0, 1)))(image, points)
    # The chip is linear in the image, so that this is an identity up to rounding.
    other = jnp.cos(7 * image)
    np.testing.assert_allclose(jnp.sum(for_image * other), total(other, points), rtol=1e-4)
    step = 0.25 * np.eye(10, dtype=np.float32).reshape(10, 5, 2)
    slopes = np.array([total(image, points + way) - total(image, points - way) for way in step]) / 0.5
    # Bilinear cells have straight slopes and the picture has not: a hundredth of the largest slope.
    np.testing.assert_allclose(for_points.ravel(), slopes, atol=0.01 * np.abs(slopes).max())


def test_landmarks_on_one_point_give_finite_derivatives():
    image = jnp.ones((40, 40, 3)) * 0.5
    gradient = jax.jit(jax.grad(lambda p: aligned_chip(image, p).sum()))(jnp.full((5, 2), 20.0))
    assert np.isfinite(gradient).all()


def test_the_loss_is_one_minus_the_cosine():
    a = jnp.asarray([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    b = jnp.asarray([[6.0, 8.0, 0.0], [-5.0, 0.0, 0.0], [0.0, 0.0, 7.0]])
    np.testing.assert_allclose(cosine_similarity(a, b), [1, -1, 0], atol=1e-6)
    np.testing.assert_allclose(identity_feature_loss(a, b), (0 + 2 + 1) / 3, rtol=1e-6)
    np.testing.assert_allclose(identity_feature_loss(7 * a, 0.1 * b), 1.0, rtol=1e-6)


def test_the_losss_derivative_turns_a_feature_and_never_stretches_it():
    a, b = jnp.asarray([[3.0, 4.0]]), jnp.asarray([[1.0, 0.0]])
    # d(1 - cos)/da = -(b/|b| - cos a/|a|)/|a| with cos = 0.6
    np.testing.assert_allclose(jax.grad(identity_feature_loss)(a, b), [[-0.128, 0.096]], atol=1e-6)
    assert np.isfinite(jax.grad(identity_feature_loss)(jnp.zeros((1, 2)), b)).all()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda d, p: b"", "too early"),
        (lambda d, p: d[: len(d) // 2], "too early"),
        (lambda d, p: d[:-1], "too early"),
        (lambda d, p: d + b"\0", "after its end"),
        (lambda d, p: b"\x89PNG\r\n" + d, "no integer"),
        (lambda d, p: d[: p[3]] + d[p[3] + 7 :], "is due"),
        (lambda d, p: d[: p[1] + 2] + b"cow_4" + d[p[1] + 7 :], "another layer"),
        # A tensor that says it has 2^63 values is refused before anything is made.
        (lambda d, p: d[: p[0] + 9] + b"\x08" + b"\xff" * 7 + b"\x7f" + d[p[0] + 12 :], "has 9223372"),
        (lambda d, p: d[: p[0] + 18] + b"\0\0\xc0\x7f" + d[p[0] + 22 :], "not finite"),
        (lambda d, p: d.replace(real(122.5), b"\x01\x00\x02\x00\x7d", 1), "not finite"),
        (lambda d, p: d + bytes(33 << 20), "larger than"),
    ],
    ids=["empty", "half", "one_less", "one_more", "other_file", "hole", "other_layer", "huge", "nan",
         "infinite", "too_large"],
)  # fmt: skip
def test_a_broken_file_is_named_with_what_is_wrong_and_what_to_do(written, tmp_path, harm, words):
    path = tmp_path / "broken.dat"
    path.write_bytes(harm(*written[1:]))
    with pytest.raises(InputError, match=words) as caught:
        read_descriptor_weights(path)
    assert str(path) in str(caught.value) and "pip install" in str(caught.value)


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="nothing.dat is not a file"):
        read_descriptor_weights(tmp_path / "nothing.dat")
    monkeypatch.setattr("facefit.photo.dlib_weights.model_file", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        read_descriptor_weights()


@installed
@pytest.mark.slow
@pytest.mark.skipif(not YTF.is_dir(), reason="the photographs are not here")
def test_photographs_of_one_person_are_nearer_than_those_of_two():
    people: dict[str, list] = {}
    with (YTF / "landmarks68.csv").open() as file:
        for row in list(csv.reader(file))[1:]:
            photo = next(field for field in row if field.endswith(".jpg"))
            people.setdefault(photo.rsplit("_", 1)[0], []).append((photo, np.array(row[-136:], np.float32)))
    chips, owner = [], []
    crop = jax.jit(aligned_chip)
    for number, person in enumerate(sorted(people)[::11]):
        for photo, points in sorted(people[person], key=lambda item: item[0])[::3]:
            pixels = read_pixels(YTF / "images" / photo)[0][:448, :448]
            framed = np.zeros((448, 448, 3), np.float32)  # one size: compiled once
            framed[: pixels.shape[0], : pixels.shape[1]] = pixels / np.float32(255)
            chips.append(crop(framed, points.reshape(68, 2) + 0.5))
            owner.append(number)
    chips, owner = np.stack(chips), np.array(owner)
    network = Descriptor(read_descriptor_weights())
    features = np.concatenate([_describe(network, np.resize(chips[i : i + 16], (16, 150, 150, 3)))
                               for i in range(0, len(chips), 16)])[: len(chips)]  # fmt: skip
    i, j = np.triu_indices(len(features), 1)
    loss = 1 - np.asarray(cosine_similarity(features[i], features[j]))
    same = owner[i] == owner[j]
    share = (loss[same][:, None] < loss[~same][None]).mean()  # the area under the ROC curve
    assert same.sum() > 50 and share > 0.95  # measured: 0.966
