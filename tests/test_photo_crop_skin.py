"""Crops lead back to the photograph to a fraction of a pixel, and skin is told from what is not."""

from __future__ import annotations

import numpy as np
import pytest

from facefit.photo import crop, face_mask, read_photograph, sample_path, skin_weight
from facefit.photo.cropping import square_to_photo, warp
from facefit.photo.skin import ycbcr

ROWS, COLUMNS = np.mgrid[0:300, 0:400].astype(np.float32) + 0.5


@pytest.mark.parametrize(
    "side, size, angle", [(64, 64, 0.0), (200, 64, 0.0), (50, 128, 0.3), (180, 90, -0.7)]
)
def test_a_warped_ramp_says_where_each_pixel_came_from(side, size, angle):
    picture = np.stack([COLUMNS, ROWS, np.zeros_like(ROWS)], -1)
    matrix = square_to_photo((190.3, 151.8), side, size, angle)
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1)
    expected = grid @ matrix[:2, :2].T + matrix[:2, 2]
    # OpenCV's bilinear weights have 5 bits: 1/32 of a photo pixel, or of a reduced one.
    tolerance = 1.5 / 32 * max(side / size, 1)
    np.testing.assert_allclose(warp(picture, matrix, size)[..., :2], expected, atol=tolerance)


def test_the_crops_centre_and_corners_map_as_promised():
    matrix = square_to_photo((100, 50), 30, 60)
    np.testing.assert_allclose(matrix @ [30, 30, 1], [100, 50, 1])
    np.testing.assert_allclose(matrix @ [0, 0, 1], [85, 35, 1])
    np.testing.assert_allclose(matrix @ [60, 0, 1], [115, 35, 1])


def test_a_crop_is_linear_light_and_averages_it():
    checker = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    linear, matrix, validity = crop(checker, (128, 128), 200, 25)
    assert linear.shape == (25, 25, 3) and linear.dtype == np.float32 and matrix.dtype == np.float32
    np.testing.assert_allclose(linear, 0.5, atol=0.02)  # half of the light, not sRGB's middle, which is 0.21
    np.testing.assert_allclose(validity, 1.0)


def test_outside_the_photograph_the_edge_repeats_and_validity_is_zero():
    picture = np.full((60, 80, 3), 255, np.uint8)
    linear, matrix, validity = crop(picture, (0, 30), 40, 40)
    np.testing.assert_allclose(linear, 1.0, atol=1e-5)
    np.testing.assert_allclose(validity[:, :19], 0, atol=1e-5)
    np.testing.assert_allclose(validity[:, 21:], 1, atol=1e-5)
    np.testing.assert_allclose(matrix @ [20, 20, 1], [0, 30, 1], atol=1e-4)


@pytest.fixture(scope="module")
def sample():
    return read_photograph(sample_path())


def test_skin_of_the_sample_is_skin_and_its_background_is_not(sample):
    weight = skin_weight(sample.pixels, sample.landmarks468)
    assert weight.shape == sample.pixels.shape[:2] and weight.dtype == np.float32
    assert 0 <= weight.min() and weight.max() <= 1
    assert weight[face_mask(sample.landmarks468, weight.shape) > 0].mean() > 0.85
    assert weight[:100, 300:].mean() < 0.3  # the shuttle and the wall
    assert weight[350:, 150:250].mean() < 0.6  # the orange suit


@pytest.mark.parametrize(
    "tone", [(236, 196, 172), (200, 150, 120), (141, 92, 65), (92, 60, 46), (60, 40, 32)]
)
def test_every_skin_tone_counts(tone):
    """Tones from light to dark, seen in a face: the photograph's own colour must carry the rare."""
    points = read_photograph(sample_path()).landmarks468
    rng = np.random.default_rng(0)
    picture = np.full((512, 512, 3), (70, 90, 120), np.float32)
    inside = face_mask(points, (512, 512)) > 0
    shade = rng.normal(1, 0.08, inside.sum())[:, None]
    picture[inside] = tone * shade
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    weight = skin_weight(picture, points)
    assert weight[inside].mean() > 0.8
    assert weight[~inside].mean() < 0.2


def test_floats_and_bytes_give_the_same_weight(sample):
    part = sample.pixels[60:200, 150:290]
    np.testing.assert_array_equal(skin_weight(part), skin_weight(part.astype(np.float32) / 255))


def test_grey_has_no_colour_difference():
    grey = np.repeat(np.linspace(0, 1, 5)[:, None], 3, 1).astype(np.float32)
    np.testing.assert_allclose(ycbcr(grey)[:, 1:], 0.5, atol=1e-6)
    np.testing.assert_allclose(ycbcr(grey)[:, 0], grey[:, 0], atol=1e-6)
