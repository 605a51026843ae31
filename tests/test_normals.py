"""Vertex normals: known directions, derivatives, and both implementations alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import vertex_normals
from facefit_kernels.normals.cases import bumpy_ball

VERTICES, FACES = bumpy_ball(8)


def test_a_corner_of_a_cube_points_along_its_diagonal(implementation):
    # Three unit triangles of equal area around the origin.
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 2, 77]])
    normals = vertex_normals(vertices, faces, implementation)
    np.testing.assert_allclose(normals[0], np.full(3, 3**-0.5), atol=1e-6)
    # A vertex without a triangle has none; a face with a vertex that is not there does not count.
    np.testing.assert_array_equal(normals[4], 0)
    np.testing.assert_allclose(normals[1], np.float32([0, 1, 1]) / 2**0.5, atol=1e-6)


def test_derivatives_are_those_of_finite_differences(implementation):
    rng = np.random.default_rng(0)
    weight, direction = (rng.normal(size=VERTICES.shape).astype(np.float32) for _ in range(2))

    def exact(vertices):
        corner = vertices[FACES]
        per_face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        total = np.zeros_like(vertices)
        for k in range(3):
            np.add.at(total, FACES[:, k], per_face)
        return total / np.linalg.norm(total, axis=-1, keepdims=True)

    start, step = VERTICES.astype(np.float64), 1e-6
    expected = (exact(start + step * direction) - exact(start - step * direction)) / (2 * step)
    normals, tangent = jax.jvp(lambda v: vertex_normals(v, FACES, implementation), (VERTICES,), (direction,))
    np.testing.assert_allclose(normals, exact(start), atol=1e-5)
    np.testing.assert_allclose(tangent, expected, atol=1e-4 * np.abs(expected).max())
    gradient = jax.grad(lambda v: jnp.sum(weight * vertex_normals(v, FACES, implementation)))(VERTICES)
    np.testing.assert_allclose(jnp.sum(gradient * direction), np.sum(weight * expected), rtol=1e-3)


def test_a_batch_is_its_elements(implementation):
    batch = jnp.stack([VERTICES, 2 * VERTICES[:, ::-1]])
    function = jax.grad(lambda v: jnp.sum(vertex_normals(v, FACES, implementation)[:, 0] ** 3))
    together = jax.vmap(function)(batch)
    for k in range(2):
        np.testing.assert_allclose(together[k], function(batch[k]), atol=1e-5)


def test_a_mesh_without_area_has_zero_normals_and_finite_derivatives(implementation):
    def total(vertices):
        return jnp.sum(vertex_normals(vertices, FACES, implementation))

    value, gradient = jax.value_and_grad(total)(jnp.zeros_like(VERTICES))
    assert value == 0 and np.all(np.isfinite(gradient))
    assert vertex_normals(np.zeros((0, 3)), np.zeros((0, 3), int), implementation).shape == (0, 3)


def test_what_does_not_fit_is_refused(implementation):
    with pytest.raises(ValueError, match="vertices must be"):
        vertex_normals(np.zeros((3, 4)), FACES, implementation)
    with pytest.raises(ValueError, match="faces must be"):
        vertex_normals(VERTICES, FACES[:, :2], implementation)
