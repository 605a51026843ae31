"""Drawing: the single operations in one call, their derivatives, and finer samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import antialias, draw, interpolate, neighbors, rasterize
from facefit_kernels.drawing.cases import colors, sheets, shift_gradient, true_shift_gradient
from facefit_kernels.rasterization.cases import ball_case, random_case

CASE = ball_case(300, (28, 36))
COLORS = colors(CASE)


def stacked(vertices, values, implementation, samples=1, case=CASE):
    image, coverage = draw(vertices, values, case.faces, case.size, samples, implementation)
    return jnp.concatenate([image, coverage[..., None]], -1)


def test_a_drawing_is_the_single_operations_one_after_the_other(implementation):
    fragments = rasterize(*CASE, implementation=implementation)
    values = np.concatenate([COLORS, np.ones((len(COLORS), 1), np.float32)], 1)
    hard = interpolate(values, CASE.faces, fragments, implementation)[:, :, 0]
    expected = antialias(hard, CASE.vertices_clip, CASE.faces, fragments, implementation)
    # The coverage inside is exactly one here, the sum of three rounded weights there.
    np.testing.assert_allclose(stacked(CASE.vertices_clip, COLORS, implementation), expected, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2])
def test_both_implementations_draw_and_differentiate_alike(both_implementations, samples):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(*CASE.size, 4)).astype(np.float32)
    d_vertices = 0.01 * rng.normal(size=CASE.vertices_clip.shape).astype(np.float32)
    d_colors = rng.normal(size=COLORS.shape).astype(np.float32)
    results = []
    for name in ("native", "reference"):

        def picture(v, c, name=name):
            return stacked(v, c, name, samples)

        back = jax.jit(jax.grad(lambda v, c, f=picture: jnp.sum(weight * f(v, c)), (0, 1)))
        ahead = jax.jit(lambda v, c, dv, dc, f=picture: jax.jvp(f, (v, c), (dv, dc)))
        gradient = back(CASE.vertices_clip, COLORS)
        image, tangent = ahead(CASE.vertices_clip, COLORS, d_vertices, d_colors)
        # Forward and reverse mode are each other's transpose.
        paired = sum(jnp.sum(g * d) for g, d in zip(gradient, (d_vertices, d_colors)))
        np.testing.assert_allclose(jnp.sum(weight * tangent), paired, rtol=1e-3, atol=1e-2)
        results.append((*gradient, image, tangent))
    for native, reference in zip(*results):
        assert np.all(np.isfinite(native))
        np.testing.assert_allclose(native, reference, atol=1e-3 * float(jnp.abs(reference).max()))


def test_finer_samples_are_the_mean_of_a_finer_picture(implementation):
    height, width = CASE.size
    fine = CASE._replace(size=(3 * height, 3 * width))
    expected = stacked(CASE.vertices_clip, COLORS, implementation, 1, fine)
    expected = expected.reshape(height, 3, width, 3, 4).mean((1, 3))
    np.testing.assert_allclose(stacked(CASE.vertices_clip, COLORS, implementation, 3), expected, atol=1e-6)


def test_a_gap_thinner_than_a_pixel_has_a_gradient_with_finer_samples(implementation):
    # Two half planes with a gap from x = 3.6 to x = 3.9: no centre lies in it, but one of two by two samples
    # does.
    edges = np.array([-99, 3.6, 3.9, 99])
    points = np.array([[x, y] for x in edges for y in (-99.0, 99.0)]) * 2 / np.array([8, 4]) - 1
    clip = np.concatenate([points, np.zeros((8, 1)), np.ones((8, 1))], 1).astype(np.float32)
    faces = np.array([[0, 2, 1], [1, 2, 3], [4, 6, 5], [5, 6, 7]])

    def covered(shift, samples):
        moved = jnp.asarray(clip).at[4:6, 0].add(shift * 2 / 8)
        return jnp.sum(draw(moved, jnp.ones((8, 1)), faces, (4, 8), samples, implementation)[1])

    rate = [float(jax.grad(covered)(0.0, samples)) for samples in (1, 2)]
    assert rate[0] == 0
    np.testing.assert_allclose(rate[1], -4, rtol=1e-2)  # a pixel a row, of which there are four


def test_a_batch_is_its_elements(implementation):
    batch = CASE.vertices_clip[None] + np.float32([0, 0.05, 0.1])[:, None, None]

    def total(vertices):
        image = stacked(vertices, COLORS, implementation)
        return jnp.sum(image**2), image

    gradients, images = jax.jit(jax.vmap(jax.grad(total, has_aux=True)))(batch)
    single = jax.jit(jax.grad(total, has_aux=True))
    for k in range(3):
        gradient, image = single(batch[k])
        np.testing.assert_allclose(images[k], image, atol=1e-5)
        np.testing.assert_allclose(gradients[k], gradient, atol=1e-3 * float(jnp.abs(gradient).max()))


def test_nothing_is_drawn_of_nothing(implementation):
    for count, faces in ((0, 0), (4, 0)):
        image, coverage = draw(
            np.ones((count, 4)), np.ones((count, 2)), np.zeros((faces, 3), int), (3, 5), 2, implementation
        )
        assert image.shape == (3, 5, 2) and not np.any(image) and not np.any(coverage)


def test_what_does_not_fit_is_refused(implementation):
    vertices, faces = np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match="vertices_clip must be"):
        draw(vertices[:, :3], np.ones((3, 1)), faces, (4, 4), implementation=implementation)
    with pytest.raises(ValueError, match="attributes must be"):
        draw(vertices, np.ones((2, 1)), faces, (4, 4), implementation=implementation)
    with pytest.raises(ValueError, match="samples must be"):
        draw(vertices, np.ones((3, 1)), faces, (4, 4), 0, implementation=implementation)


@pytest.mark.parametrize(
    ("name", "samples", "most"),
    [
        ("one triangle", 1, 0.07),
        ("slivers", 4, 0.25),  # up to two pixels wide and apart: one sample a pixel misses most of them
        ("across the border", 1, 0.05),
        ("through the camera's plane", 1, 0.03),
        ("one before another", 1, 0.07),
    ],
)
def test_the_gradient_of_a_shift_is_that_of_the_supersampled_picture(
    both_implementations, name, samples, most
):
    scene = sheets(name)
    expected = true_shift_gradient(scene)
    error = np.linalg.norm(shift_gradient(scene, samples) - expected)
    assert error < most * np.linalg.norm(expected)


@pytest.mark.slow
def test_a_large_mesh_is_drawn_on_a_high_and_narrow_picture(both_implementations):
    case = ball_case(200_000, (4096, 96))
    values = colors(case)

    def drawn(name):
        def total(v):
            image, coverage = draw(v, values, case.faces, case.size, 1, name)
            return jnp.sum(image**2), (image, coverage)

        return jax.jit(jax.grad(total, has_aux=True))(case.vertices_clip)

    (gradient, (image, coverage)), (slope, (expected, _)) = drawn("native"), drawn("reference")
    assert np.mean(np.abs(np.asarray(image) - np.asarray(expected)).max(-1) > 1e-2) < 1e-3
    assert 0.2 < np.mean(coverage) < 0.95
    assert np.all(np.isfinite(gradient)) and np.all(np.isfinite(slope))


def scenes_are_sound(seeds) -> None:
    """Random scenes of everything: the same picture and faces from both implementations, finite
    derivatives.
    """

    def both(name):
        def value(vertices, values, faces, adjacent, size):
            def total(v, c):
                image, coverage = draw(v, c, faces, size, 1, name, adjacent)
                return jnp.sum(image**2) + jnp.sum(coverage), image

            (_, image), gradient = jax.value_and_grad(total, (0, 1), has_aux=True)(vertices, values)
            return image, gradient, rasterize(vertices, faces, size, implementation=name).face_index

        return jax.jit(value, static_argnums=4)

    native, reference = both("native"), both("reference")
    for seed in seeds:
        case = random_case(seed)
        values = colors(case._replace(vertices_clip=np.nan_to_num(case.vertices_clip, posinf=1, neginf=1)))
        adjacent = np.asarray(neighbors(case.faces))
        arguments = (case.vertices_clip, values, case.faces, adjacent, case.size)
        image, gradient, shown = native(*arguments)
        expected, slope, visible = reference(*arguments)
        np.testing.assert_array_equal(shown, visible, err_msg=str(seed))
        # Slivers: quotients of small differences, which the two sum in another order.
        different = np.abs(np.asarray(image) - np.asarray(expected)).max(-1) > 1e-2
        assert different.mean() < 0.02, seed
        for leaf in (image, *gradient):
            assert np.all(np.isfinite(leaf)), f"native, seed {seed}"
        for leaf in (expected, *slope):
            assert np.all(np.isfinite(leaf)), f"reference, seed {seed}"


def test_random_scenes_are_drawn_alike_and_have_finite_derivatives(both_implementations):
    scenes_are_sound(range(40))


@pytest.mark.exhaustive
def test_ten_thousand_random_scenes_are_drawn_alike_and_have_finite_derivatives(both_implementations):
    scenes_are_sound(range(10_000))
