"""Interpolation: weights of three corners, linear in attributes and weights; both implementations alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import Fragments, interpolate, rasterize
from facefit_kernels.interpolation.cases import CHANNELS, attributes
from facefit_kernels.rasterization.cases import ball_case

SIZE = (20, 24)
CASE = ball_case(120, SIZE)


def fragments_of(face_index, barycentric):
    face_index = jnp.asarray(face_index, jnp.int32)
    zeros = jnp.zeros(face_index.shape)
    return Fragments(
        face_index=face_index,
        barycentric=jnp.asarray(barycentric, jnp.float32),
        depth=zeros,
        signed_distance=zeros,
    )


@pytest.fixture(scope="module")
def drawn():
    # By the reference, whatever is tested: the input of this operation, not its subject.
    return jax.jit(lambda v: rasterize(v, CASE.faces, SIZE, implementation="reference"))(CASE.vertices_clip)


def test_a_fragment_is_the_weighted_sum_of_its_corners(implementation):
    fragments = fragments_of([[[0], [1], [-1]]], [[[[0.2, 0.3, 0.5]], [[1, 0, 0]], [[0.4, 0.4, 0.2]]]])
    values = np.array([[1, 10], [2, 20], [3, 30], [4, 40]], np.float32)
    result = interpolate(values, np.array([[0, 1, 2], [3, 1, 0]]), fragments, implementation)
    np.testing.assert_allclose(result[0, :, 0], [[2.3, 23], [4, 40], [0, 0]], rtol=1e-6)


def test_several_fragments_a_pixel_are_taken_each_by_itself(implementation):
    rng = np.random.default_rng(0)
    index = rng.integers(-1, len(CASE.faces), (5, 7, 4))
    weights = rng.random((5, 7, 4, 3)).astype(np.float32)
    values = attributes(CASE, 3)
    result = np.asarray(interpolate(values, CASE.faces, fragments_of(index, weights), implementation))
    expected = np.einsum("hwkjc,hwkj->hwkc", values[CASE.faces[index]], weights) * (index >= 0)[..., None]
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_linear_field_of_space_is_interpolated_exactly(implementation, drawn):
    # Attributes x / w and y / w are linear in space only times w: interpolating x, y and w and dividing gives
    # pixels.
    clip = CASE.vertices_clip
    values = np.asarray(interpolate(clip, CASE.faces, drawn, implementation))[:, :, 0]
    hit = np.asarray(drawn.face_index[..., 0]) >= 0
    y, x = np.nonzero(hit)
    ndc = values[hit][:, :2] / values[hit][:, 3:]
    # A thousandth of a pixel: slivers have weights that are quotients of small differences.
    np.testing.assert_allclose((ndc[:, 0] + 1) / 2 * SIZE[1] - 0.5, x, atol=1e-3)
    np.testing.assert_allclose((ndc[:, 1] + 1) / 2 * SIZE[0] - 0.5, y, atol=1e-3)
    np.testing.assert_allclose(values[hit][:, 2] / values[hit][:, 3], drawn.depth[..., 0][hit], atol=1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
def test_derivatives_are_those_of_the_bilinear_form(implementation, drawn, channels):
    values = attributes(CASE, channels)
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(*SIZE, 1, channels)).astype(np.float32)

    def function(a, b):
        return interpolate(a, CASE.faces, drawn.replace(barycentric=b), implementation)

    g_values, g_weights = jax.jit(jax.grad(lambda a, b: jnp.sum(weight * function(a, b)), (0, 1)))(
        values, drawn.barycentric
    )
    index = np.asarray(drawn.face_index)
    hit = index >= 0
    corners = CASE.faces[index]
    expected = np.zeros_like(values, dtype=np.float64)
    for j in range(3):
        np.add.at(
            expected,
            corners[..., j][hit],
            (weight * np.asarray(drawn.barycentric)[..., j : j + 1])[hit].astype(np.float64),
        )
    # Sums of some hundred terms in another order.
    np.testing.assert_allclose(g_values, expected, rtol=1e-4, atol=1e-4)
    expected = np.einsum("hwkjc,hwkc->hwkj", values[corners], weight) * hit[..., None]
    np.testing.assert_allclose(g_weights, expected, rtol=1e-4, atol=1e-5)
    # The form is linear in each: its tangent is exact.
    da, db = rng.normal(size=values.shape), rng.normal(size=drawn.barycentric.shape)
    _, tangent = jax.jit(lambda a, b, da, db: jax.jvp(function, (a, b), (da, db)))(
        values, drawn.barycentric, da.astype(np.float32), db.astype(np.float32)
    )
    expected = function(da.astype(np.float32), drawn.barycentric) + function(values, db.astype(np.float32))
    np.testing.assert_allclose(tangent, expected, atol=1e-5)


def test_a_batch_is_its_elements(implementation, drawn):
    values = jnp.stack([attributes(CASE, 3, seed) for seed in range(3)])
    batch = jax.jit(jax.vmap(lambda a: interpolate(a, CASE.faces, drawn, implementation)))(values)
    gradients = jax.jit(
        jax.vmap(jax.grad(lambda a: jnp.sum(interpolate(a, CASE.faces, drawn, implementation) ** 2)))
    )(values)
    shared = jax.jit(
        jax.grad(
            lambda a: jnp.sum(
                jax.vmap(lambda b: interpolate(a, CASE.faces, drawn.replace(barycentric=b), implementation))(
                    jnp.stack([drawn.barycentric, 2 * drawn.barycentric])
                )
            )
        )
    )(values[0])
    for k in range(3):
        np.testing.assert_allclose(
            batch[k], interpolate(values[k], CASE.faces, drawn, implementation), atol=1e-6
        )
        single = jax.grad(lambda a: jnp.sum(interpolate(a, CASE.faces, drawn, implementation) ** 2))(
            values[k]
        )
        np.testing.assert_allclose(gradients[k], single, rtol=1e-4, atol=1e-4)
    one = jax.grad(lambda a: jnp.sum(interpolate(a, CASE.faces, drawn, implementation)))(values[0])
    np.testing.assert_allclose(shared, 3 * one, rtol=1e-4, atol=1e-4)


def test_forward_over_columns_is_reverse_over_rows(implementation, drawn):
    small = Fragments(
        *(
            value[8:11, 8:12]
            for value in (drawn.face_index, drawn.barycentric, drawn.depth, drawn.signed_distance)
        )
    )

    def function(b):
        return interpolate(attributes(CASE, 2), CASE.faces, small.replace(barycentric=b), implementation)

    np.testing.assert_allclose(
        jax.jacfwd(function)(small.barycentric), jax.jacrev(function)(small.barycentric), atol=1e-6
    )


def test_nothing_gives_zeros(implementation):
    empty = fragments_of(-np.ones((3, 2, 1)), np.zeros((3, 2, 1, 3)))
    for values, faces in ((np.ones((0, 3)), np.zeros((0, 3))), (np.ones((4, 3)), np.zeros((0, 3)))):
        result = interpolate(values, faces, empty, implementation)
        assert result.shape == (3, 2, 1, 3) and np.all(result == 0)
    none = fragments_of(np.zeros((0, 2, 1)), np.zeros((0, 2, 1, 3)))
    assert interpolate(np.ones((4, 3)), np.zeros((1, 3)), none, implementation).shape == (0, 2, 1, 3)


def test_attributes_without_a_channel_axis_are_refused(implementation, drawn):
    with pytest.raises(ValueError, match="attributes must be"):
        interpolate(np.ones(len(CASE.vertices_clip)), CASE.faces, drawn, implementation)
