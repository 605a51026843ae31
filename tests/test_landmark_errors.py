"""The table of the dense network's errors, and the mean offset that a model carries."""

import cv2
import jax.numpy as jnp
import numpy as np

from facefit.fit.surface import fitting_surface
from facefit.model import find_model
from facefit.model.landmark_errors import landmark_errors, mean_error
from facefit.photo.face_mesh import mirror_permutation


def test_depths_are_less_certain_than_places():
    sigma = np.asarray(landmark_errors().sigma)
    assert sigma.shape == (468, 2)
    # Outer-eye distances (about 90 mm): from a tenth of a millimetre to three.
    assert 0.001 < sigma.min() and sigma.max() < 0.035
    assert np.median(sigma[:, 1]) > np.median(sigma[:, 0])


AHEAD = jnp.asarray([0.0, 0.0, 800.0])


def error_at(pitch, yaw, roll=0.0):
    """Mean error of a face before the camera, turned by degrees: first yaw, then pitch, then roll."""
    turn = np.eye(3)
    for angle, axis in ((yaw, (0, 1, 0)), (pitch, (1, 0, 0)), (roll, (0, 0, 1))):
        turn = cv2.Rodrigues(np.radians(angle) * np.float64(axis))[0] @ turn
    rotation = cv2.Rodrigues(turn)[0].ravel()
    return np.asarray(mean_error(landmark_errors(), jnp.asarray(rotation, jnp.float32), AHEAD))


def test_a_face_seen_from_the_front_has_no_mean_error_in_the_picture():
    error = error_at(0, 0)
    np.testing.assert_allclose(error[:, :2], 0, atol=1e-6)
    np.testing.assert_allclose(error[:, 2], landmark_errors().depth_bias, atol=1e-6)
    # Not the head's turn counts but the side it shows: beside the optical axis a face is seen from aside.
    aside = mean_error(landmark_errors(), jnp.zeros(3), jnp.asarray([800.0, 0.0, 800.0]))
    np.testing.assert_allclose(aside, error_at(0, -45), atol=1e-3)


def test_the_mean_error_turns_with_the_picture():
    upright, turned = error_at(10, 30), error_at(10, 30, 90)
    np.testing.assert_allclose(turned[:, 0], -upright[:, 1], atol=1e-5)
    np.testing.assert_allclose(turned[:, 1], upright[:, 0], atol=1e-5)
    np.testing.assert_allclose(turned[:, 2], upright[:, 2], atol=1e-5)
    # A few percent of the eye distance at thirty degrees: what it is there for.
    assert 0.01 < np.sqrt((upright[:, :2] ** 2).mean()) < 0.05


def test_left_and_right_are_mirror_images():
    left, right = error_at(5, 25), error_at(5, -25)
    mirrored = left[mirror_permutation()] * [-1, 1, 1]
    depth = np.asarray(landmark_errors().depth_bias)
    mirrored[:, 2] += depth - depth[mirror_permutation()]
    np.testing.assert_allclose(mirrored, right, atol=1e-4)


def test_the_offset_moves_the_dense_landmarks_and_nothing_else():
    model = find_model("open")
    offset = jnp.zeros((468, 3)).at[4].set(jnp.asarray([1.0, 2.0, 3.0]))
    plain = fitting_surface(model.replace(landmark_offset468=None))
    moved = fitting_surface(model.replace(landmark_offset468=offset))
    difference = np.asarray(moved.landmarks.mean - plain.landmarks.mean)
    np.testing.assert_allclose(difference[4], [1, 2, 3], atol=1e-4)
    assert np.abs(np.delete(difference, 4, axis=0)).max() == 0
    np.testing.assert_array_equal(moved.landmarks.basis, plain.landmarks.basis)
    np.testing.assert_array_equal(moved.points.mean, plain.points.mean)


def test_the_embedded_model_is_calibrated_and_symmetric():
    model = find_model("open")
    offset = np.asarray(model.landmark_offset468)
    assert 0.1 < np.sqrt((offset**2).mean()) < 3.0  # millimetres: a correction, not another face
    # 33 and 263 are the outer eye corners, 61 and 291 the mouth's: mirror images of each other.
    for right, left in ((33, 263), (61, 291)):
        np.testing.assert_allclose(offset[right] * [-1, 1, 1], offset[left], atol=0.5)
