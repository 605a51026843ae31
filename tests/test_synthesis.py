"""Synthetic photographs: what is said to be true of them is what is drawn."""

import numpy as np
import pytest
from tiny_model import tiny_model

from facefit.photo.face_crop import CROP_FOCAL, FACE_SHARE, NETWORK_SHARE, face_square
from facefit.render.lighting import irradiance
from facefit.synthesis import Grade, grading, prepare_head, random_grade, random_photo
from facefit.synthesis.expressions import random_expression, random_rotation
from facefit.synthesis.lights import random_light, sphere

SIZE = 96
ARKIT = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp")
ARKIT += ("eyeLookOutLeft", "eyeLookInRight", "mouthFunnel", "mouthPucker", "cheekPuff", "noseSneerLeft")


@pytest.fixture(scope="module")
def head():
    return prepare_head(tiny_model())


@pytest.fixture(scope="module")
def photos(head):
    return [random_photo(head, (3, person), (picture,), SIZE) for person in range(4) for picture in range(2)]


def test_the_same_keys_give_the_same_photograph(head, photos):
    again = random_photo(prepare_head(tiny_model()), (3, 1), (0,), SIZE)
    assert np.array_equal(again.image, photos[2].image) and np.array_equal(again.skin, photos[2].skin)
    assert not np.array_equal(photos[2].image, photos[3].image)


def test_photographs_of_one_person_share_what_a_person_has(photos):
    for first, second in zip(photos[::2], photos[1::2], strict=True):
        assert np.array_equal(first.truth.identity, second.truth.identity)
        assert np.array_equal(first.truth.albedo, second.truth.albedo)
        assert not np.array_equal(first.truth.lighting, second.truth.lighting)
    assert not np.array_equal(photos[0].truth.identity, photos[2].truth.identity)


def test_the_face_is_where_the_crop_rule_puts_it(photos):
    for photo in photos:
        center, side = face_square(photo.landmarks)
        # The search for the camera stops a few hundredths of a pixel from its end.
        assert np.allclose(center, SIZE / 2, atol=0.1)
        assert side == pytest.approx(NETWORK_SHARE * SIZE, rel=2e-3)


def test_landmarks_are_the_projection_of_the_truth(head, photos):
    import cv2

    for photo in photos:
        truth = photo.truth
        shape = np.asarray(head.marks.mean)
        shape = shape + np.tensordot(truth.identity, np.asarray(head.marks.identity_basis), 1)
        shape = shape + np.tensordot(truth.expression, np.asarray(head.marks.expression_basis), 1)
        depth = truth.translation[2] * truth.focal / (CROP_FOCAL * NETWORK_SHARE * SIZE)
        translation = np.array([*truth.translation[:2], depth])
        placed = (shape * [1, -1, -1]) @ cv2.Rodrigues(truth.rotation.astype(float))[0].T + translation
        pixels = placed[:, :2] * truth.focal / placed[:, 2:] + SIZE / 2
        assert np.allclose(pixels, photo.landmarks, atol=0.02)  # float32 of a metre at a focal length of 1000


def test_skin_is_weighed_on_the_face_only(photos):
    for photo in photos:
        rows, columns = np.nonzero(photo.skin > 128)
        assert len(rows) > 100
        low, high = photo.landmarks.min(0) - 0.5 * SIZE, photo.landmarks.max(0) + 0.5 * SIZE
        assert (columns > low[0]).all() and (columns < high[0]).all()


def test_light_is_never_negative_and_exposed():
    normals = sphere(500).astype(np.float32)
    for seed in range(40):
        light = random_light(np.random.default_rng(seed))
        reflected = np.asarray(irradiance(normals, light.lighting))
        # Between the 400 directions that are probed the second order may dip a little lower.
        assert reflected.min() > 0.02 * light.lighting[0].mean()
        assert 0.3 < light.lighting[0].mean() < 2.5


def test_a_lamp_of_irradiance_one_reflects_as_a_cosine():
    # Least squares over the sphere: the harmonics up to order two of max(0, cos) are 1/4, cos/2 and
    # 5/32 (3 cos^2 - 1).
    from facefit.render.lighting import sh_basis

    orders = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)
    direction = np.array([0.6, 0.0, -0.8], np.float32)
    lighting = np.asarray(sh_basis(direction)) / orders / 4
    normals = sphere(50).astype(np.float32)
    cosine = normals @ direction
    expected = 0.25 + 0.5 * cosine + 5 / 32 * (3 * cosine**2 - 1)
    assert np.allclose(np.asarray(sh_basis(normals)) @ lighting, expected, atol=1e-5)


def test_expressions_are_blendshape_weights_with_sides_together():
    drawn = np.stack(
        [random_expression(np.random.default_rng(k), ARKIT, len(ARKIT), True) for k in range(300)]
    )
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn[:, 0] > 0.3).mean() > 0.05, "some mouths are open"
    assert 0.03 < (drawn[:, 3] > 0.8).mean() < 0.2, "some eyes are closed"
    assert np.corrcoef(drawn[:, 1], drawn[:, 2])[0, 1] > 0.9


def test_other_bases_get_a_few_weights_or_a_normal_draw():
    shapes = random_expression(np.random.default_rng(0), ("a", "b", "c"), 3, True)
    assert shapes.min() >= 0 and shapes.max() <= 1
    normal = np.stack([random_expression(np.random.default_rng(k), (), 50, False) for k in range(40)])
    assert normal.std() == pytest.approx(0.8, rel=0.05)


def test_heads_turn_to_seventy_degrees_and_hardly_further():
    # Rotation of the viewing direction z in the plane x, z.
    import cv2

    turns = [cv2.Rodrigues(random_rotation(np.random.default_rng(k)).astype(float))[0] for k in range(400)]
    yaw = np.degrees([np.arctan2(turn[0, 2], turn[2, 2]) for turn in turns])
    assert 50 < np.abs(yaw).max() < 80  # pitch and roll, applied after it, change the angle by a few degrees
    assert np.median(np.abs(yaw)) < 30


def test_a_face_takes_its_share_of_the_networks_crop():
    square = np.tile(np.float32([10, 20]), (68, 1))
    square[1] = 74, 60
    center, side = face_square(square)
    assert np.allclose(center, (42, 40)) and side == pytest.approx(64 / FACE_SHARE)


def test_graded_pictures_of_a_person_are_spoiled_evenly_from_not_at_all_to_far():
    worst = []
    for person in range(60):
        grades = [random_grade((5, person), picture, 5) for picture in range(5)]
        assert grades == [random_grade((5, person), picture, 5) for picture in range(5)]
        levels = sorted(max(grade) for grade in grades)
        assert levels[0] == 0 and levels[-1] >= 0.7
        for rank, level in enumerate(levels):
            assert 0.7 * rank / 4 <= level <= rank / 4
        worst += [grade for grade in grades if max(grade) >= 0.7]
    ways = np.array(worst) > 0
    assert ways.any(0).all() and 1 < ways.sum(1).mean() < 2.5  # every way is met, and more than one at a time


def test_a_graded_photograph_is_spoiled_as_its_grade_says(head):
    import cv2

    def photo(**grade):
        levels = {"turned": 0.0, "covered": 0.0, "blurred": 0.0} | grade
        return random_photo(head, (3, 1), (0,), SIZE, Grade(**levels))

    plain, turned, covered, blurred = (
        photo(), photo(turned=0.9), photo(covered=1.0), photo(blurred=1.0)
    )  # fmt: skip

    def yaw(one):
        turn = cv2.Rodrigues(one.truth.rotation.astype(float))[0]
        return abs(np.degrees(np.arctan2(turn[0, 2], turn[2, 2])))

    assert yaw(plain) < 15 and yaw(turned) > 45
    assert covered.hidden > 0.4 > plain.hidden
    assert covered.skin.sum() < 0.7 * plain.skin.sum()
    assert np.array_equal(covered.landmarks, plain.landmarks)
    assert not np.array_equal(blurred.image, plain.image)
    assert np.array_equal(blurred.skin, plain.skin)


def test_blur_leaves_noise_and_the_broad_colors():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(60, 200, (4, 4, 3)), np.ones((24, 24, 1))).astype(np.uint8)
    same = grading.blur(rng, image, Grade(0, 0, 0))
    soft = grading.blur(rng, image, Grade(0, 0, 1))
    assert np.array_equal(same, image)
    assert soft.mean() == pytest.approx(image.mean(), abs=1.0)
    edge = np.abs(np.diff(image.astype(float), axis=1)).max()
    columns = soft.astype(float).reshape(4, 24, 96, 3).mean(1)  # rows of a block, which average the noise
    assert np.abs(np.diff(columns, axis=1)).max() < 0.4 * edge
