"""The camera: frames, crops and the agreement of its two ways to a pixel."""

import facefit_kernels
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefit.photo import crop
from facefit.render import clip_coordinates, directions_to_camera, intrinsics, project, to_camera

ZERO = np.zeros(3, np.float32)
AHEAD = np.float32([0, 0, 1000])


def random_points(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 60, (count, 3)).astype(np.float32)


def test_a_face_at_zero_rotation_looks_at_the_camera_upright():
    matrix = intrinsics(1000.0, jnp.float32([320, 240]))

    def place(x, y, z):
        return np.asarray(to_camera(jnp.float32([x, y, z]), ZERO, AHEAD))

    np.testing.assert_allclose(place(0, 0, 100), [0, 0, 900])  # the nose is nearer than the ears
    pixel = np.asarray(project(place(10, 20, 0), matrix))
    # The subject's left is on the picture's right, the top of the head is at small y; 1 mm is 1 px at 1 m.
    np.testing.assert_allclose(pixel, [330, 220], atol=1e-4)


def test_the_rotation_is_that_of_the_camera_frame():
    # Turned by +90 degrees about the camera's y axis (down), the nose, which pointed at the camera, points to
    # -x.
    turned = directions_to_camera(jnp.float32([0, 0, 1]), jnp.float32([0, np.pi / 2, 0]))
    np.testing.assert_allclose(turned, [-1, 0, 0], atol=1e-6)


def test_moving_and_turning_keep_distances():
    points = random_points(20)
    moved = np.asarray(to_camera(points, jnp.float32([0.3, -1.2, 0.5]), jnp.float32([5, -7, 800])))
    before = np.linalg.norm(points[:, None] - points, axis=-1)
    after = np.linalg.norm(moved[:, None] - moved, axis=-1)
    np.testing.assert_allclose(after, before, atol=1e-3)
    # A mirrored face would pass the above.
    edges = np.diff(points[:4], axis=0), np.diff(moved[:4], axis=0)
    assert np.linalg.det(edges[0]) == pytest.approx(np.linalg.det(edges[1]), rel=1e-3)


def test_projection_is_that_of_a_pinhole_and_does_not_depend_on_scale():
    points = random_points(20) + AHEAD
    matrix = intrinsics(700.0, jnp.float32([111.5, 200.25]))
    expected = 700 * points[:, :2] / points[:, 2:] + [111.5, 200.25]
    np.testing.assert_allclose(project(points, matrix), expected, rtol=1e-5)
    np.testing.assert_allclose(project(points * 3, matrix), expected, rtol=1e-5)


def test_clip_space_and_projection_agree_on_every_pixel():
    size = (90, 140)  # not square, the centre off the middle
    points = random_points(50) + np.float32([0, 0, 700])
    matrix = intrinsics(400.0, jnp.float32([61.3, 52.8]))
    clip = np.asarray(clip_coordinates(points, matrix, size))
    ndc = clip[:, :3] / clip[:, 3:]
    pixel = (ndc[:, :2] + 1) / 2 * [size[1], size[0]]
    np.testing.assert_allclose(pixel, project(points, matrix), atol=1e-4)
    order = np.argsort(points[:, 2])
    assert (np.diff(ndc[order, 2]) > 0).all()  # the nearer, the smaller


def test_a_triangle_covers_the_pixels_that_its_projected_corners_say():
    """Rows downwards, columns to the right, centres at .5: through the rasterizer and by hand."""
    size = (40, 60)
    corners = np.float32([[-20, -14, 500], [26, -3, 640], [4, 21, 450]])
    matrix = intrinsics(450.0, jnp.float32([31.2, 17.7]))
    faces = np.int32([[0, 1, 2]])

    @jax.jit
    def draw(points):
        return facefit_kernels.rasterize(clip_coordinates(points, matrix, size), faces, size)

    drawn = draw(corners)
    a, b, c = np.asarray(project(corners, matrix), np.float64)
    y, x = np.mgrid[:40, :60] + 0.5
    pixel = np.stack([x, y], -1)

    def side(p, q):
        return (q - p)[0] * (pixel - p)[..., 1] - (q - p)[1] * (pixel - p)[..., 0]

    sides = np.stack([side(a, b), side(b, c), side(c, a)])
    inside = (sides > 0).all(0) | (sides < 0).all(0)
    assert inside.sum() > 200
    # A centre within a thousandth of a pixel of an edge may go either way.
    clear = np.abs(sides).min(0) > 1e-3 * 60
    np.testing.assert_array_equal((np.asarray(drawn.face_index)[..., 0] >= 0)[clear], inside[clear])


@pytest.mark.parametrize(("near", "far"), [(10.0, 20000.0), (300.0, 900.0)])
def test_near_and_far_planes_are_the_ends_of_clip_space(near, far):
    ends = np.float32([[3, 4, near], [-5, 2, far]])
    clip = clip_coordinates(ends, intrinsics(500.0, jnp.float32([50, 50])), (100, 100), near, far)
    np.testing.assert_allclose(clip[:, 2] / clip[:, 3], [-1, 1], atol=1e-5)


def test_a_crop_has_the_photograph_s_camera_seen_through_its_matrix():
    """crop_to_photo inverse times the photograph's intrinsics draws the crop: the pixel under a point is the
    same.
    """
    points = random_points(30, seed=3) + AHEAD
    photo = intrinsics(1500.0, jnp.float32([320, 240]))
    in_photo = np.asarray(project(points, photo))
    # Every pixel holds its own position, so that the crop's colours say where in the photograph they are
    # from.
    y, x = np.mgrid[:480, :640]
    pixels = np.stack([x * 255 / 640, y * 255 / 480, 0 * x], -1).astype(np.uint8)
    _, crop_to_photo, _ = crop(pixels, in_photo.mean(0), 200.0, 100)
    through_crop = np.linalg.inv(crop_to_photo) @ np.asarray(photo)
    in_crop = np.asarray(project(points, jnp.float32(through_crop)))
    back = np.c_[in_crop, np.ones(30)] @ np.asarray(crop_to_photo).T
    np.testing.assert_allclose(back[:, :2], in_photo, atol=1e-2)
    assert through_crop[0, 0] == pytest.approx(750)  # half the resolution, half the focal length
    assert through_crop[0, 0] == pytest.approx(through_crop[1, 1])


def test_projection_never_divides_by_zero():
    behind = np.float32([[1, 2, 0], [1, 2, -500], [1, 2, 1e-8]])
    matrix = intrinsics(500.0, jnp.float32([50, 50]))
    assert np.isfinite(project(behind, matrix)).all()
    assert np.isfinite(jax.jacfwd(lambda p: project(p, matrix))(behind)).all()


def test_derivatives_of_pose_and_focal_length_match_differences():
    points = random_points(6)

    def pixels(x):
        return project(to_camera(points, x[:3], x[3:6]), intrinsics(x[6], x[7:9]))

    x = np.float32([0.3, -0.4, 0.2, 12, -9, 700, 900, 200, 150])
    jacobian = np.asarray(jax.jit(jax.jacfwd(pixels))(x))
    assert np.isfinite(jacobian).all()
    compiled = jax.jit(pixels)
    for k, h in enumerate(np.float32([0.01] * 3 + [1] * 3 + [4] * 3)):
        step = np.zeros(9, np.float32)
        step[k] = h
        difference = (np.asarray(compiled(x + step)) - np.asarray(compiled(x - step))) / (2 * h)
        # Single precision and the second-order error of the step.
        np.testing.assert_allclose(jacobian[..., k], difference, atol=2e-3 * max(1, np.abs(difference).max()))
