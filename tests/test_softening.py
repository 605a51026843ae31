"""Soft blending: chances and weights worked out by hand, its limits, its gradients, and one call for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import Fragments, blur_for, interpolate, rasterize, soft_blend, soft_render
from facefit_kernels.rasterization.cases import ball_case
from facefit_kernels.softening.cases import FRAGMENTS, GAMMA, sigma_for

OPERATION = "soft_render"  # which implementations there are depends on it; see conftest.py

SIGMA = 0.3


def pixel_of(distances, depths):
    """The fragments of a picture of one pixel; None for a slot that is empty."""
    there = [d is not None for d in distances]
    return Fragments(
        face_index=jnp.asarray(np.where(there, range(len(there)), -1), jnp.int32)[None, None],
        barycentric=jnp.full((1, 1, len(there), 3), 1 / 3),
        depth=jnp.asarray([1.0 if z is None else z for z in depths], jnp.float32)[None, None],
        signed_distance=jnp.asarray([d or 0.0 for d in distances], jnp.float32)[None, None],
    )


def blend(fragments, values, background, implementation, sigma=SIGMA, gamma=0.1):
    image, coverage = soft_blend(
        np.asarray(values, np.float32)[None, None], fragments, background, sigma, gamma, implementation
    )
    return np.asarray(image[0, 0]), float(coverage[0, 0])


def test_an_edge_through_the_centre_is_half_covered(implementation):
    # D = sigmoid(0) = 1/2; the only fragment is the nearest, so it weighs 1/2, and the background
    # exp((0 - 0.5) / 0.1).
    image, coverage = blend(pixel_of([0.0], [0.0]), [[2.0]], jnp.array([1.0]), implementation)
    rest = np.exp(-5)
    np.testing.assert_allclose(coverage, 0.5, rtol=1e-6)
    np.testing.assert_allclose(image, (0.5 * 2 + rest) / (0.5 + rest), rtol=1e-6)


def test_three_fragments_are_those_worked_out_by_hand(implementation):
    # Chances: sigmoid(0.6^2 / 0.3), sigmoid(-0.3^2 / 0.3), sigmoid(0.1^2 / 0.3). Nearness (1 - depth) / 2:
    # 0.6, 0.55 and 0.5, the largest 0.6.
    chances = np.array([0.76852478, 0.42555748, 0.50833256])
    weights = chances * np.exp(np.array([0.0, -0.5, -1.0]))
    rest = np.exp(-6.0)
    fragments = pixel_of([0.6, -0.3, 0.1, None], [-0.2, -0.1, 0.0, None])
    values = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 5.0], [9.0, 9.0]])
    image, coverage = blend(fragments, values, jnp.array([0.5, 0.25]), implementation)
    expected = (weights @ values[:3] + rest * np.array([0.5, 0.25])) / (weights.sum() + rest)
    np.testing.assert_allclose(coverage, 1 - np.prod(1 - chances), rtol=1e-6)
    np.testing.assert_allclose(image, expected, rtol=1e-5)


def test_a_pixel_without_fragments_is_its_background(implementation):
    image, coverage = blend(
        pixel_of([None, None], [None, None]), np.ones((2, 1)), jnp.array([0.7]), implementation
    )
    assert coverage == 0
    np.testing.assert_allclose(image, 0.7, rtol=1e-6)


def test_the_picture_is_that_of_pytorch3d_with_its_settings(implementation):
    # softmax_rgb_blend of PyTorch3D written out in its own units: squared distances in a picture of sides 2,
    # positive outside; depth w between znear and zfar; sigma, gamma.
    size, znear, zfar, gamma = 64, 1.0, 100.0, 1e-2
    distance, w = np.array([0.4, -0.7, 0.2]), np.array([3.0, 3.5, 5.0])
    values, background = np.array([[1.0], [0.2], [0.6]]), 0.3
    sigma = SIGMA * (2 / size) ** 2
    dists = -np.sign(distance) * (distance * 2 / size) ** 2
    chance = 1 / (1 + np.exp(dists / sigma))
    nearness = (zfar - w) / (zfar - znear)
    weights = chance * np.exp((nearness - nearness.max()) / gamma)
    rest = max(np.exp((1e-10 - nearness.max()) / gamma), 1e-10)
    expected = (weights @ values + rest * background) / (weights.sum() + rest)
    fragments = pixel_of(distance, 1 - 2 * nearness)
    image, coverage = blend(fragments, values, jnp.array([background]), implementation, gamma=gamma)
    np.testing.assert_allclose(image, expected, rtol=1e-4)
    np.testing.assert_allclose(coverage, 1 - np.prod(1 - chance), rtol=1e-5)


SCENE = ball_case(150, (20, 24))
# Lists long enough to hold all that is near: where one overflows, a step may push a fragment out of it.
SOFT, LENGTH = 0.03, 24
COLORS = np.random.default_rng(3).random((len(SCENE.vertices_clip), 3)).astype(np.float32)
BACKGROUND = np.array([0.1, 0.5, 0.9], np.float32)


def composed(vertices, colors, background, sigma, gamma, implementation):
    drawn = rasterize(vertices, SCENE.faces, SCENE.size, LENGTH, blur_for(SOFT), implementation)
    values = interpolate(colors, SCENE.faces, drawn, implementation)
    return soft_blend(values, drawn, background, sigma, gamma, implementation)


def at_once(vertices, colors, background, sigma, gamma, implementation):
    blur = blur_for(SOFT)
    return soft_render(
        vertices, SCENE.faces, colors, SCENE.size, background, sigma, gamma, LENGTH, blur, implementation
    )


def loss_of(function, implementation, gamma=0.05):
    rng = np.random.default_rng(5)
    to_image, to_coverage = rng.normal(size=(*SCENE.size, 3)), rng.normal(size=SCENE.size)

    def loss(vertices, colors, background):
        image, coverage = function(vertices, colors, background, SOFT, gamma, implementation)
        return jnp.sum(to_image * image) + jnp.sum(to_coverage * coverage), (image, coverage)

    return loss


INPUT = (SCENE.vertices_clip, COLORS, BACKGROUND)


@pytest.fixture(scope="module")
def truth():
    """Values and gradients of the reference."""
    loss = loss_of(composed, "reference")
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*INPUT)


@pytest.mark.parametrize("function", [composed, at_once])
def test_every_way_gives_the_reference_s_picture_and_gradients(implementation, function, truth):
    loss = loss_of(function, implementation)
    found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*INPUT)
    for ours, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(truth)):
        # Sums of some hundred terms in another order; slivers have large gradients that cancel.
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))


def test_gradients_are_those_of_finite_differences(implementation):
    # A fragment that enters at the border of the blur has a chance of 1e-4, so the step sees little of it.
    loss = loss_of(at_once, implementation)
    rng = np.random.default_rng(7)
    directions = [rng.normal(size=np.shape(v)).astype(np.float32) * s for v, s in zip(INPUT, (1e-2, 1, 1))]
    value = jax.jit(lambda *a: loss(*a)[0])
    gradients = jax.jit(jax.grad(lambda *a: loss(*a)[0], argnums=(0, 1, 2)))(*INPUT)
    tangent = jax.jit(lambda a, d: jax.jvp(lambda *a: loss(*a)[0], a, d)[1])(INPUT, tuple(directions))
    step = 1e-2
    up, down = (value(*(v + sign * step * d for v, d in zip(INPUT, directions))) for sign in (1, -1))
    reverse = sum(float(np.sum(np.asarray(g, np.float64) * d)) for g, d in zip(gradients, directions))
    np.testing.assert_allclose(tangent, reverse, rtol=2e-3)
    np.testing.assert_allclose(float(up - down) / (2 * step), reverse, rtol=3e-2)


def test_an_edge_moves_coverage_by_the_slope_of_the_sigmoid(implementation):
    # A half plane left of x = 3.2: at the centre 3.5 the distance is -0.3, so D = sigmoid(-0.09 / 0.3), and
    # its rate for a shift of a pixel is D (1 - D) 2 0.3 / 0.3.
    size = (4, 8)
    x, y = np.array([-999.0, 3.2, 3.2]), np.array([2.0, -999.0, 1003.0])
    clip = np.stack([x * 2 / 8 - 1, y * 2 / 4 - 1, 0 * x, 1 + 0 * x], 1).astype(np.float32)

    def coverage(shift):
        moved = jnp.asarray(clip).at[:, 0].add(shift * 2 / 8)
        return soft_render(
            moved,
            np.array([[0, 1, 2]]),
            np.ones((3, 1)),
            size,
            np.zeros(1),
            SIGMA,
            GAMMA,
            2,
            None,
            implementation,
        )[1][2, 3]

    value, rate = jax.value_and_grad(coverage)(0.0)
    chance = 1 / (1 + np.exp(0.3))
    np.testing.assert_allclose(value, chance, rtol=1e-3)
    np.testing.assert_allclose(rate, chance * (1 - chance) * 2, rtol=1e-3)


def test_a_small_sigma_is_the_hard_picture(implementation):
    image, coverage = soft_render(
        *INPUT[:1], SCENE.faces, COLORS, SCENE.size, BACKGROUND, 1e-6, 1e-6, 3, None, implementation
    )
    hard = rasterize(SCENE.vertices_clip, SCENE.faces, SCENE.size, implementation=implementation)
    wanted = interpolate(COLORS, SCENE.faces, hard, implementation)[:, :, 0]
    shown = hard.face_index[..., 0] >= 0
    clear = np.abs(np.asarray(hard.signed_distance[..., 0])) > 0.02
    np.testing.assert_allclose(coverage, shown, atol=1e-3)
    np.testing.assert_allclose(image[shown & clear], wanted[shown & clear], atol=2e-2)
    np.testing.assert_allclose(image[~shown], np.broadcast_to(BACKGROUND, image[~shown].shape), atol=1e-3)


def test_with_sigma_scaled_to_its_triangles_a_mesh_does_not_swell(both_implementations):
    case = ball_case(22_000, (224, 224))
    sigma = sigma_for(case)
    ones = np.ones((len(case.vertices_clip), 1), np.float32)
    _, coverage = soft_render(
        case.vertices_clip, case.faces, ones, case.size, np.zeros(1), sigma, GAMMA, FRAGMENTS
    )
    hard = np.asarray(rasterize(case.vertices_clip, case.faces, case.size).face_index[..., 0]) >= 0
    # The graded intersection over union; that of the mask coverage > 1/2 is larger.
    assert np.minimum(coverage, hard).sum() / np.maximum(coverage, hard).sum() > 0.985
    assert ((coverage > 0.5) & hard).sum() / ((coverage > 0.5) | hard).sum() > 0.995


def test_a_batch_is_its_elements(implementation):
    batch = SCENE.vertices_clip + np.array([[0, 0, 0, 0], [0.2, 0.1, 0, 0]], np.float32)[:, None]
    loss = loss_of(at_once, implementation)
    gradient = jax.grad(lambda v: loss(v, COLORS, BACKGROUND)[0])
    together = jax.jit(jax.vmap(gradient))(batch)
    for k in range(2):
        alone = jax.jit(gradient)(batch[k])
        np.testing.assert_allclose(together[k], alone, rtol=1e-3, atol=1e-4 * float(np.abs(alone).max()))


def test_the_same_input_gives_the_same_bits(implementation):
    function = jax.jit(jax.grad(lambda *a: loss_of(at_once, implementation)(*a)[0], argnums=(0, 1)))
    for first, second in zip(function(*INPUT), function(*INPUT)):
        np.testing.assert_array_equal(first, second)


def test_nothing_is_nan_where_the_softness_is_extreme(implementation):
    def value(vertices, sigma, gamma):
        image, coverage = composed(vertices, COLORS, BACKGROUND, sigma, gamma, implementation)
        return jnp.sum(image) + jnp.sum(coverage)

    gradient = jax.jit(jax.value_and_grad(value))
    for sigma in (1e-12, 1e6):
        for gamma in (1e-7, 1e4):
            for part in gradient(SCENE.vertices_clip, sigma, gamma):
                assert np.all(np.isfinite(part)), (sigma, gamma)


def test_shapes_that_do_not_belong_together_are_refused(implementation):
    fragments = pixel_of([0.0], [0.0])
    with pytest.raises(ValueError, match="values must be"):
        soft_blend(np.ones((1, 1, 3)), fragments, np.zeros(3), SIGMA, GAMMA, implementation)
    with pytest.raises(ValueError, match="background must be"):
        soft_blend(np.ones((1, 1, 1, 3)), fragments, np.zeros(2), SIGMA, GAMMA, implementation)
    with pytest.raises(ValueError, match="attributes must be"):
        at_once(SCENE.vertices_clip, COLORS[:3], BACKGROUND, SIGMA, GAMMA, implementation)
