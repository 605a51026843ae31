"""Textures and overlays show what was photographed: checked on renderings whose truth is known."""

import numpy as np
import pytest
from tiny_model import tiny_model

from facefit.color import srgb_to_linear
from facefit.export.overlay import overlay
from facefit.export.texture import bake_texture, blend, mirror_points
from facefit.export.views import (
    PosedView,
    SquareCrop,
    draw,
    draw_atlas,
    from_bytes,
    light_on,
    project,
    to_bytes,
)
from facefit.model.registration import vertex_normals
from facefit.render import to_camera

MATRIX = np.float32([[900, 0, 260], [0, 900, 300], [0, 0, 1]])
SIZE = (600, 500)
LIGHT = np.zeros((9, 3), np.float32)
LIGHT[0], LIGHT[2], LIGHT[3] = 0.8, -0.25, [0.2, 0.15, 0.1]


@pytest.fixture(scope="module")
def model():
    return tiny_model(subdivisions=4)


@pytest.fixture(scope="module")
def truth(model):
    mean = np.asarray(model.mean)
    wave = 1 + 0.3 * np.sin(mean[:, :1] / 12) * np.cos(mean[:, 1:2] / 12)
    return np.asarray(model.albedo_mean) * wave * np.float32([0.9, 1.1, 1.0])


def photograph(model, albedo, yaw, background=(0.1, 0.3, 0.1)):
    """A rendering of the model under LIGHT, turned by `yaw`, made by interpolating colours over it."""
    faces = np.asarray(model.faces)
    rotation, translation = np.float32([0, yaw, 0]), np.float32([0, 0, 600])
    vertices = np.asarray(to_camera(np.asarray(model.mean), rotation, translation))
    light = light_on(vertex_normals(vertices, faces), LIGHT)
    surface = draw(vertices, faces, MATRIX, SIZE)
    picture = surface.interpolate((albedo * light).astype(np.float32), faces)
    picture[surface.face < 0] = background
    return PosedView(to_bytes(picture), vertices, MATRIX, LIGHT)


def test_tables_agree_with_the_definition_of_srgb():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(from_bytes(every), srgb_to_linear(every / np.float32(255)), atol=1e-6)
    np.testing.assert_array_equal(to_bytes(from_bytes(every)), every)


def test_a_rendering_bakes_back_to_its_albedo(model, truth):
    size = 256
    views = [photograph(model, truth, yaw) for yaw in (-0.6, 0.0, 0.6)]
    texture = from_bytes(bake_texture(model, np.asarray(model.albedo_mean), views, size))
    faces = np.asarray(model.faces)
    atlas = draw_atlas(model.uv, model.uv_faces, size)
    expected = atlas.interpolate(truth.astype(np.float32), faces)
    front = atlas.interpolate(np.asarray(model.mean)[:, 2:], faces)[..., 0] > 45
    error = np.abs(np.log(texture[front]) - np.log(expected[front]))
    # Eight-bit pictures at albedo 0.15 are good to 1%; bilinear reading twice blurs waves of 75 mm by another
    # percent.
    assert np.median(error) < 0.015
    assert np.quantile(error, 0.95) < 0.06
    # The prior was off by far more than that: the answer came from the photographs.
    prior = atlas.interpolate(np.asarray(model.albedo_mean), faces)
    assert np.median(np.abs(np.log(prior[front]) - np.log(expected[front]))) > 0.08


def test_what_is_not_seen_takes_the_tone_of_what_is(model):
    """A subject twice as bright as the prior, seen from the front only, is twice as bright at the back."""
    albedo = np.asarray(model.albedo_mean)
    view = photograph(model, 1.8 * albedo, 0.0)
    texture = from_bytes(bake_texture(model, albedo, [view], 256))
    atlas = draw_atlas(model.uv, model.uv_faces, 256)
    back = atlas.interpolate(np.asarray(model.mean)[:, 2:], np.asarray(model.faces))[..., 0] < -40
    prior = atlas.interpolate(albedo, np.asarray(model.faces))
    ratio = texture[back & (atlas.face >= 0)] / prior[back & (atlas.face >= 0)]
    np.testing.assert_allclose(np.median(ratio), 1.8, rtol=0.05)
    np.testing.assert_allclose(ratio, 1.8, rtol=0.15)


def test_without_photographs_the_texture_is_the_models_albedo(model):
    albedo = np.asarray(model.albedo_mean)
    texture = bake_texture(model, albedo, [], 128)
    atlas = draw_atlas(model.uv, model.uv_faces, 128)
    expected = to_bytes(atlas.interpolate(albedo, np.asarray(model.faces)))
    shown = atlas.face >= 0
    assert np.abs(texture[shown].astype(int) - expected[shown]).max() <= 1
    assert texture.min() > 0  # the gaps are filled, or filtering would bring black in


def test_the_background_does_not_reach_the_texture(model, truth):
    green = photograph(model, truth, 0.3, background=(0.0, 1.0, 0.0))
    dark = photograph(model, truth, 0.3, background=(0.0, 0.0, 0.0))
    prior = np.asarray(model.albedo_mean)
    a, b = (bake_texture(model, prior, [view], 128).astype(int) for view in (green, dark))
    assert np.abs(a - b).max() <= 2


def test_blending_drops_the_source_that_disagrees():
    good, hand = np.full((1, 5, 3), 0.3), np.full((1, 5, 3), 0.9)
    color, weight = blend(np.concatenate([good, hand, good, good]), np.ones((4, 5)))
    np.testing.assert_allclose(color, 0.3, rtol=0.1)
    np.testing.assert_allclose(weight, 1)


def test_mirror_points_lie_across_the_plane(model):
    corners, weights = mirror_points(model)
    mean = np.asarray(model.mean)
    across = np.einsum("vk,vkc->vc", weights, mean[corners])
    assert np.abs(across - mean * [-1, 1, 1]).max() < 0.3


@pytest.mark.parametrize("side", [40.0, 100.0, 333.3])
def test_a_crop_and_its_matrix_agree(side):
    """A smooth picture cut out, larger or smaller, shows at every pixel what the matrix says it shows."""
    rows, columns = np.mgrid[0:400, 0:500] + 0.5
    picture = np.stack([columns, rows], -1).astype(np.float32)
    crop = SquareCrop(np.array([31.3, 22.7]), side, 100)
    cut = crop.cut(picture)
    inverse = np.linalg.inv(crop.matrix())
    y, x = np.mgrid[0:100, 0:100] + 0.5
    expected = np.stack([x, y], -1) @ inverse[:2, :2].T + inverse[:2, 2]
    # INTER_AREA rounds the part to whole pixels and remap has 1/32 pixel steps.
    np.testing.assert_allclose(cut[3:-3, 3:-3], expected[3:-3, 3:-3], atol=0.15 * max(1, side / 100))


def test_the_overlay_lies_on_the_photograph(model, truth):
    view = photograph(model, truth, 0.4)
    points = project(view.vertices[[0, 5]], MATRIX)
    picture = overlay(model, view, truth, points, points + 5, size=200)
    assert picture.shape == (200, 600, 3)
    left, right = picture[:, :200].astype(int), picture[:, 400:].astype(int)
    # The truth re-rendered in its own light is the photograph, up to antialiasing at the outline.
    difference = np.abs(left - right).max(-1)
    assert np.median(difference) <= 1
    assert (difference > 12).mean() < 0.02
    green = np.abs(picture[:, 200:400].astype(int) - [40, 220, 90]).max(-1) < 8
    assert green.any()


def test_over_a_grey_photograph_the_face_is_grey(model, truth):
    view = photograph(model, truth, 0.2)
    grey = PosedView(np.repeat(view.pixels[..., 1:2], 3, axis=2), view.vertices, view.matrix, view.lighting)
    colored, plain = (overlay(model, one, truth, size=100)[:, 200:].astype(int) for one in (view, grey))
    assert np.ptp(colored, axis=2).max() > 20
    assert np.ptp(plain, axis=2).max() <= 1
    assert np.abs(plain[50, 50] - colored[50, 50].mean()).max() < 25


def test_a_view_that_is_not_finite_is_refused(model):
    with pytest.raises(ValueError, match="vertices"):
        PosedView(np.zeros((4, 4, 3), np.uint8), np.full((3, 3), np.nan), np.eye(3), np.zeros((9, 3)))
    with pytest.raises(ValueError, match="albedo"):
        bake_texture(model, np.full(model.mean.shape, np.nan), [], 32)
