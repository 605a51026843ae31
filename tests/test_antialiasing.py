"""Antialiasing: where silhouettes lie, what blending them does to the picture, and the gradient of
visibility.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import antialias, neighbors, rasterize
from facefit_kernels.antialiasing.cases import BACKGROUND, Scene, colored_ball, picture, supersampled
from facefit_kernels.rasterization.cases import ball, ball_case, random_case


def flat_picture(clip, faces, colors, size, implementation, background=0.0):
    """A picture of one colour a face, (H, W, 1), before and after antialiasing."""
    fragments = rasterize(clip, faces, size, implementation=implementation)
    shown = fragments.face_index
    hard = jnp.where(shown >= 0, jnp.asarray(colors, jnp.float32)[shown], background)
    return hard, antialias(hard, clip, faces, fragments, implementation)


def strip(edge, size=(4, 8), slope=0.0):
    """A half plane left of x = edge (at the middle row; `slope` pixels a row), in clip coordinates."""
    points = np.array(
        [
            [-2999, -999],
            [edge - slope * (999 + size[0] / 2), -999],
            [edge + slope * (999 - size[0] / 2), 999],
            [-2999, 999],
        ],
        np.float32,
    )
    if slope == 0:
        points[1:3, 0] = edge
    ndc = points * 2 / np.array([size[1], size[0]], np.float32) - 1
    return np.concatenate([ndc, np.zeros((4, 1)), np.ones((4, 1))], 1).astype(np.float32), np.array(
        [[0, 1, 2], [0, 2, 3]]
    )


@pytest.mark.parametrize("edge", [2.6, 3.0, 3.25, 3.5, 3.9])
def test_a_vertical_edge_gives_each_pixel_its_covered_area(implementation, edge):
    clip, faces = strip(edge)
    _, image = flat_picture(clip, faces, [1.0, 1.0], (4, 8), implementation)
    covered = np.clip(edge - np.arange(8), 0, 1)
    np.testing.assert_allclose(image[..., 0], np.broadcast_to(covered, (4, 8)), atol=2e-4)


def test_a_horizontal_edge_gives_each_pixel_its_covered_area(implementation):
    clip, faces = strip(3.3, (8, 4))
    clip = clip[:, [1, 0, 2, 3]].copy()  # x and y exchanged in an 8 by 4 picture: rows below y = 3.3 / 4 * 8
    _, image = flat_picture(clip, faces, [1.0, 1.0], (8, 4), implementation)
    edge = 3.3 / 4 * 8
    np.testing.assert_allclose(image[:, 0, 0], np.clip(edge - np.arange(8), 0, 1), atol=2e-4)


def test_the_edge_of_a_linear_ramp_is_exact_too(implementation):
    # Colours that change along the surface: what the pixel at the edge shows is the ramp's mean over the
    # covered part.
    size, edge = (4, 10), 5.8
    clip, faces = strip(edge, size)
    fragments = rasterize(clip, faces, size, implementation=implementation)
    centre = jnp.arange(10) + 0.5
    image = jnp.where(fragments.face_index >= 0, (0.1 * centre)[None, :, None], 0.0)
    blended = antialias(image, clip, faces, fragments, implementation)
    np.testing.assert_allclose(blended[1, 5, 0], 0.1 * (edge**2 - 5**2) / 2, atol=2e-4)
    rate = jax.grad(
        lambda shift: jnp.sum(
            antialias(
                image, jnp.asarray(clip).at[:, 0].add(shift * 2 / 10), faces, fragments, implementation
            )[1]
        )
    )(0.0)
    np.testing.assert_allclose(rate, 0.1 * edge, rtol=2e-3)  # the colour at the edge itself


def test_moving_a_half_plane_by_a_pixel_changes_a_row_by_a_pixel(implementation):
    for slope in (0.0, 0.4, -0.9):
        clip, faces = strip(8.2, (12, 16), slope)
        rate = jax.grad(
            lambda shift, c=clip, f=faces: jnp.sum(
                flat_picture(
                    jnp.asarray(c).at[:, 0].add(shift * 2 / 16), f, [1.0, 1.0], (12, 16), implementation
                )[1]
            )
        )(0.0)
        np.testing.assert_allclose(rate, 12, rtol=1e-2, err_msg=f"slope {slope}")


def test_edges_inside_a_surface_are_left_alone(implementation):
    # Two faces of different colours that share the diagonal: the surface goes on, so nothing is blended
    # there.
    clip, faces = strip(99)
    hard, image = flat_picture(clip, faces, [0.0, 1.0], (16, 16), implementation)
    np.testing.assert_array_equal(hard, image)


def test_a_surface_hiding_itself_has_an_edge(implementation):
    # A sheet folded back on itself: a front half in front of its own back half, joined along the fold x =
    # 3.3.
    size = (4, 8)
    x = np.array([-9, 3.3, 20])
    corners = np.array(
        [
            [x[0], -99, 0.0],
            [x[0], 99, 0.0],
            [x[1], -99, 0.1],
            [x[1], 99, 0.1],
            [x[0] - 9, -99, 0.4],
            [x[0] - 9, 99, 0.4],
            [x[2], -99, 0.4],
            [x[2], 99, 0.4],
        ]
    )
    clip = np.concatenate([corners[:, :2] * 2 / np.array([8, 4]) - 1, corners[:, 2:], np.ones((8, 1))], 1)
    faces = np.array([[0, 2, 1], [1, 2, 3], [2, 4, 3], [3, 4, 5], [4, 6, 5], [5, 6, 7]])
    colors = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    hard, image = flat_picture(clip.astype(np.float32), faces, colors, size, implementation)
    np.testing.assert_allclose(hard[0, :, 0], [1, 1, 1, 0.25, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(
        image[1, :, 0], [1, 1, 1, 0.25 + 0.75 * 0.3, 0.25, 0.25, 0.25, 0.25], atol=2e-4
    )


def test_neighbors_are_across_the_opposite_edge(implementation):
    faces = np.array([[0, 1, 2], [2, 1, 3], [3, 1, 4], [5, 6, 7], [1, 4, 3]])
    expected = np.array([[1, -1, -1], [-1, -1, 0], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    # Edge 1-3 belongs to three faces, edge 1-4 and 3-4 to two: faces 2 and 4 are the same triangle.
    expected[2] = [4, 4, -1]
    expected[4] = [2, -1, 2]
    np.testing.assert_array_equal(neighbors(faces, implementation), expected)
    _, closed = ball(9, 11)
    across = np.asarray(neighbors(closed, implementation))
    assert np.all(across >= 0)
    for k in range(3):
        assert np.all((across[across[:, k]] == np.arange(len(closed))[:, None]).any(1))
    np.testing.assert_array_equal(jax.jit(lambda f: neighbors(f, implementation))(closed), across)


def test_both_implementations_find_the_same_edges(both_implementations):
    from facefit_kernels.antialiasing.silhouette import crossings
    from facefit_kernels.library import call

    found = {}
    # Of two sizes: each is compiled.
    cases = [random_case(seed) for seed in range(0, 80, 2)] + [ball_case(800, (48, 56))]
    compiled = jax.jit(crossings)
    for case in cases:
        index = rasterize(*case, implementation="native").face_index[..., 0]
        adjacent = neighbors(case.faces, "native")
        arguments = (jnp.asarray(case.vertices_clip), jnp.asarray(case.faces), adjacent)
        native = call("crossings", jax.ShapeDtypeStruct((*case.size, 2, 2), jnp.int32), *arguments, index)
        np.testing.assert_array_equal(native, compiled(*arguments, index))
        for kind in np.minimum(np.asarray(native), 0).ravel():
            found[int(kind)] = found.get(int(kind), 0) + 1
    assert found[0] > 1000 and found[-1] > 1000  # edges, and pairs without one


def test_both_implementations_blend_and_differentiate_alike(both_implementations):
    scene, size = colored_ball(14, 0.2), (40, 48)
    weight = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
    direction = np.random.default_rng(1).normal(size=scene.vertices.shape).astype(np.float32) * 0.01
    results = []
    for name in ("native", "reference"):
        function = jax.jit(
            jax.value_and_grad(lambda v, name=name: jnp.sum(weight * picture(v, scene, size, name)))
        )
        tangent = jax.jit(
            lambda v, d, name=name: jax.jvp(lambda u: picture(u, scene, size, name), (v,), (d,))
        )
        results.append((*function(scene.vertices), *tangent(scene.vertices, direction)))
    for native, reference in zip(*results, strict=True):
        assert np.all(np.isfinite(native))
        np.testing.assert_allclose(native, reference, atol=2e-3 * float(jnp.abs(reference).max()))


def test_forward_and_reverse_mode_agree(implementation):
    scene, size = colored_ball(8, 0.2), (20, 24)
    weight = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
    direction = np.random.default_rng(1).normal(size=scene.vertices.shape).astype(np.float32)

    def total(vertices):
        return jnp.sum(weight * picture(vertices, scene, size, implementation))

    rate = jax.jit(lambda v, d: jax.jvp(total, (v,), (d,))[1])(scene.vertices, direction)
    gradient = jax.jit(jax.grad(total))(scene.vertices)
    # The terms of the sum are some hundred times larger than it.
    np.testing.assert_allclose(
        rate,
        jnp.sum(gradient * direction),
        rtol=1e-3,
        atol=1e-4 * float(jnp.sum(jnp.abs(gradient * direction))),
    )


def test_a_batch_is_its_elements(implementation):
    scene, size = colored_ball(8, 0.2), (20, 24)
    batch = scene.vertices[None] + np.array([0, 0.05, 0.1], np.float32)[:, None, None]

    def total(vertices):
        image = picture(vertices, scene, size, implementation)
        return jnp.sum(image**2), image

    gradients, images = jax.jit(jax.vmap(jax.grad(total, has_aux=True)))(batch)
    single = jax.jit(jax.grad(total, has_aux=True))
    for k in range(3):
        gradient, image = single(batch[k])
        np.testing.assert_allclose(images[k], image, atol=1e-5)
        np.testing.assert_allclose(gradients[k], gradient, atol=1e-3 * float(jnp.abs(gradient).max()))


def test_the_blend_comes_nearer_to_the_supersampled_picture(both_implementations):
    for rings, bumps in ((12, 0.0), (40, 0.2), (100, 0.2)):
        scene, size = colored_ball(rings, bumps), (96, 96)
        true = supersampled(scene.vertices, scene, size, 8)
        error = [
            float(jnp.abs(picture(scene.vertices, scene, size, antialiased=flag) - true).sum())
            for flag in (False, True)
        ]
        assert error[1] < 0.35 * error[0], (rings, error)


@pytest.mark.parametrize(("rings", "bumps"), [(12, 0.0), (40, 0.2), (104, 0.2)])
def test_gradient_of_a_picture_loss_is_that_of_the_supersampled_loss(both_implementations, rings, bumps):
    """Rigid shift along x, y and z against finite differences; 104 rings have triangles of about 2 pixels.

    The target of each axis lies along that axis, so that its derivative is not a small difference of large
    parts.
    """
    scene, size = colored_ball(rings, bumps), (128, 128)
    hard = jax.jit(lambda shift: supersampled(scene.vertices + shift, scene, size, 8))

    @jax.jit
    def gradient(target):
        return jax.grad(lambda shift: jnp.abs(picture(scene.vertices + shift, scene, size) - target).sum())(
            jnp.zeros(3)
        )

    for axis, offset, step in ((0, 0.2, 0.008), (1, -0.2, 0.008), (2, 0.5, 0.02)):
        unit = np.eye(3, dtype=np.float32)[axis]
        target = hard(offset * unit)
        losses = [float(jnp.abs(hard(sign * step * unit) - target).sum()) for sign in (1, -1)]
        expected = (losses[0] - losses[1]) / (2 * step)
        # Colours change by a tenth of their range within the last pixel of a silhouette; the blend knows them
        # at the centres only.
        np.testing.assert_allclose(gradient(target)[axis], expected, rtol=0.03, err_msg=f"axis {axis}")


def test_an_image_of_another_size_is_refused(implementation):
    scene = Scene(*colored_ball(4, 0.0))
    clip = np.zeros((len(scene.vertices), 4), np.float32)
    fragments = rasterize(clip, scene.faces, (4, 4), implementation=implementation)
    with pytest.raises(ValueError, match="image must be"):
        antialias(np.zeros((4, 5, 3)), clip, scene.faces, fragments, implementation)
    empty = antialias(np.full((4, 4, 3), BACKGROUND), clip, scene.faces, fragments, implementation)
    np.testing.assert_array_equal(empty, np.full((4, 4, 3), BACKGROUND))
