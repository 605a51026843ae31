"""Rotations agree with their matrix exponential and inverse; sRGB agrees with its standard; both have finite
derivatives everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from facefit.color import linear_to_srgb, srgb_to_linear
from facefit.rotations import axis_angle_from_matrix, matrix_from_axis_angle, skew

AXIS = np.float32([0.6, -0.48, 0.64])  # of unit length
ANGLES = (0.0, 1e-6, 9e-4, 1.1e-3, 0.1, 1.5, 3.0, np.pi)  # 1e-3 is where the series hands over

matrix = jax.jit(matrix_from_axis_angle)
axis_angle = jax.jit(axis_angle_from_matrix)


@pytest.mark.parametrize("angle", ANGLES)
def test_a_rotation_is_the_exponential_of_its_cross_product(angle):
    v = AXIS * np.float32(angle)
    # Single precision of a product of three factors.
    np.testing.assert_allclose(matrix(v), expm(np.asarray(skew(v), np.float64)), atol=1e-6)


def test_skew_is_the_cross_product():
    v, u = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(skew(v) @ u, np.cross(v, u), atol=1e-6)


def test_rotations_keep_lengths_and_handedness():
    for v in np.random.default_rng(1).normal(0, 2, (5, 3)).astype(np.float32):
        r = np.asarray(matrix(v), np.float64)
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=2e-6)
        assert np.linalg.det(r) == pytest.approx(1, abs=2e-6)
        np.testing.assert_allclose(r @ v, v, atol=1e-5)  # the axis stays


@pytest.mark.parametrize("angle", ANGLES)
def test_the_inverse_gives_the_vector_back(angle):
    # About every axis in turn, so that each of the four quaternion components is the largest once.
    for axis in [AXIS, *np.eye(3, dtype=np.float32), *-np.eye(3, dtype=np.float32)]:
        v = axis * np.float32(angle)
        found = np.asarray(axis_angle(matrix(v)))
        if angle > 3.1:  # half a turn about an axis and about its opposite are the same
            found = found * np.sign(found @ v)
        np.testing.assert_allclose(found, v, atol=2e-5)


def test_the_derivative_of_a_rotation_matches_differences_and_is_finite_at_zero():
    jacobian = jax.jit(jax.jacfwd(matrix_from_axis_angle))
    at_zero = np.asarray(jacobian(jnp.zeros(3)))
    np.testing.assert_allclose(at_zero, np.moveaxis([skew(e) for e in np.eye(3)], 0, -1), atol=1e-7)
    assert np.isfinite(jax.jacrev(matrix_from_axis_angle)(jnp.zeros(3))).all()
    for angle in (9e-4, 1.1e-3, 2.0):
        v = np.float64(AXIS) * angle
        steps = [(expm(skew64(v + h)) - expm(skew64(v - h))) / 2e-5 for h in 1e-5 * np.eye(3)]
        # 1 - cos of a small angle has few digits in single precision.
        np.testing.assert_allclose(jacobian(np.float32(v)), np.moveaxis(steps, 0, -1), atol=2e-4)


def skew64(v):
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def test_srgb_values_of_the_standard():
    # IEC 61966-2-1: ends, the joint of both pieces, and middle grey.
    srgb = np.float32([0, 0.04045, 0.5, 188 / 255, 1])
    linear = np.float32([0, 0.0031308, 0.21404114, 0.50288646, 1])
    np.testing.assert_allclose(srgb_to_linear(srgb), linear, atol=2e-6)
    np.testing.assert_allclose(linear_to_srgb(linear), srgb, atol=2e-5)


def test_every_byte_survives_the_way_to_linear_light_and_back():
    byte = np.arange(256)
    back = np.asarray(linear_to_srgb(srgb_to_linear(np.float32(byte / 255))))
    np.testing.assert_array_equal(np.round(back * 255), byte)
    assert (np.diff(back) > 0).all()


def test_encoding_clips_and_has_finite_derivatives_at_and_below_black():
    np.testing.assert_allclose(linear_to_srgb(jnp.float32([-3, 7])), [0, 1], atol=1e-7)
    slope = jax.vmap(jax.grad(lambda x: linear_to_srgb(x)))
    values = jnp.float32([-1, 0, 1e-7, 1e-3, 0.2, 0.9])
    assert np.isfinite(slope(values)).all()
    assert np.isfinite(jax.vmap(jax.grad(lambda x: srgb_to_linear(x)))(values)).all()
    expected = (linear_to_srgb(jnp.float32(0.201)) - linear_to_srgb(jnp.float32(0.199))) / 0.002
    np.testing.assert_allclose(slope(values)[4], expected, rtol=1e-3)
