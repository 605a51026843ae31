"""The table of the dense network's errors, and the mean offset that a model carries."""

import jax.numpy as jnp
import numpy as np

from facefit.fit.surface import fitting_surface
from facefit.model import find_model
from facefit.model.landmark_errors import landmark_errors


def test_depths_are_less_certain_than_places():
    sigma = np.asarray(landmark_errors().sigma)
    assert sigma.shape == (468, 2)
    # Outer-eye distances (about 90 mm): from a tenth of a millimetre to three.
    assert 0.001 < sigma.min() and sigma.max() < 0.035
    assert np.median(sigma[:, 1]) > np.median(sigma[:, 0])


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
