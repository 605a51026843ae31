"""Rasterization: what covers a pixel, how near it is, and how both implementations agree on it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import rasterize
from facefit_kernels.rasterization.cases import ball_case, fan_case, random_case


def clip_from_pixels(points, size, z=0.0, w=1.0):
    """Clip coordinates of points given in pixels."""
    points = np.asarray(points, np.float32)
    ndc = points * 2 / np.array([size[1], size[0]], np.float32) - 1
    ones = np.ones(len(points), np.float32)
    return np.stack([ndc[:, 0] * w, ndc[:, 1] * w, z * ones * w, ones * w], axis=1).astype(np.float32)


@functools.cache
def compiled(size, implementation):
    return jax.jit(lambda v, f: rasterize(v, f, size, implementation=implementation))


def draw(vertices, faces, size, implementation):
    return compiled(tuple(size), implementation)(jnp.asarray(vertices), jnp.asarray(faces, jnp.int32))


def test_a_triangle_covers_the_pixels_whose_centres_are_in_it(implementation):
    # Legs of 4 pixels: centres with x + y < 4 are inside; those on the hypotenuse x + y = 4 count as a little
    # to the right of it, outside.
    size = (8, 8)
    fragments = draw(clip_from_pixels([[0, 0], [4, 0], [0, 4]], size), [[0, 1, 2]], size, implementation)
    expected = -np.ones(size, int)
    for row in range(8):
        for column in range(8):
            if column + 0.5 + row + 0.5 < 4:
                expected[row, column] = 0
    np.testing.assert_array_equal(fragments.face_index[..., 0], expected)
    # At (0.5, 1.5): the weights of the corners are 1 - 2/4, 0.5/4, 1.5/4.
    np.testing.assert_allclose(fragments.barycentric[1, 0, 0], [0.5, 0.125, 0.375], atol=1e-6)
    # Nearest of the three sides is x = 0, half a pixel away.
    np.testing.assert_allclose(fragments.signed_distance[1, 0, 0], 0.5, atol=1e-5)
    nothing = expected < 0
    assert np.all(fragments.barycentric[nothing] == 0) and np.all(fragments.depth[nothing] == 1)
    assert np.all(fragments.signed_distance[nothing] == 0)


def test_barycentric_coordinates_are_those_of_space_not_of_the_picture(implementation):
    # A segment from w = 1 to w = 3: halfway in the picture is a quarter of the way in space.
    size = (2, 4)
    vertices = clip_from_pixels([[0.5, -10], [3.5, 0.5], [0.5, 11]], size)
    vertices[1] *= 3
    fragments = draw(vertices, [[0, 1, 2]], size, implementation)
    x = 1.5
    screen = (x - 0.5) / 3
    np.testing.assert_allclose(
        fragments.barycentric[0, 1, 0, 1], (screen / 3) / (screen / 3 + (1 - screen)), rtol=1e-5
    )
    np.testing.assert_allclose(np.sum(fragments.barycentric[0, 1, 0]), 1, atol=1e-6)


def test_the_nearer_triangle_wins_and_of_equal_ones_the_lower_index(implementation):
    size = (8, 8)
    large = [[-9, -9], [29, -9], [-9, 29]]
    vertices = np.concatenate([clip_from_pixels(large, size, z) for z in (0.5, -0.25, 0.1)])
    faces = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [4, 5, 3], [5, 4, 3]])
    fragments = draw(vertices, faces, size, implementation)
    assert np.all(fragments.face_index == 1)
    np.testing.assert_allclose(fragments.depth, -0.25, atol=1e-6)
    fragments = draw(vertices, faces[::-1], size, implementation)
    assert np.all(fragments.face_index == 0)


def test_points_beyond_the_near_and_far_planes_are_not_drawn(implementation):
    size = (1, 20)
    vertices = clip_from_pixels([[0, -50], [20, 0.5], [0, 51]], size)
    vertices[:, 2] = [-3, 3, -3]  # depth rises along the row, -1 at a third and 1 at two thirds
    fragments = draw(vertices, [[0, 1, 2]], size, implementation)
    x = np.arange(20) + 0.5
    drawn = (x >= 20 / 3) & (x <= 40 / 3)
    np.testing.assert_array_equal(fragments.face_index[0, :, 0] >= 0, drawn)
    np.testing.assert_allclose(fragments.depth[0, drawn, 0], (x[drawn] / 20) * 6 - 3, atol=1e-5)


def test_a_triangle_through_the_camera_plane_is_its_part_in_front(implementation):
    # The floor y = 1 below a camera at the origin, from behind it to far ahead: it fills the picture up to
    # the horizon.
    size = (32, 32)
    floor = np.array([[-90, 1, -40], [90, 1, -40], [0, 1, 4000]], np.float32)
    near, far = 0.1, 1000.0
    x, y, z = floor.T
    vertices = np.stack([x, y, (far + near) / (far - near) * z - 2 * far * near / (far - near), z], 1)
    fragments = draw(vertices.astype(np.float32), [[0, 1, 2]], size, implementation)
    centre = (np.arange(32) + 0.5) / 16 - 1  # y / z of the row
    with np.errstate(divide="ignore"):
        distance = np.where(centre > 0, 1 / centre, np.inf)
    drawn = (distance < far) & (distance > near)
    np.testing.assert_array_equal(fragments.face_index[:, :, 0] >= 0, np.broadcast_to(drawn[:, None], size))
    expected = (far + near) / (far - near) - 2 * far * near / (far - near) / distance[drawn]
    np.testing.assert_allclose(fragments.depth[drawn, 16, 0], expected, atol=1e-5)
    assert np.all(np.isfinite(fragments.barycentric))


def test_a_cut_plane_is_covered_once_without_gaps(implementation):
    for seed in range(3):
        case = fan_case(seed)
        whole = draw(case.vertices_clip, case.faces, case.size, implementation)
        assert np.all(whole.face_index >= 0)

        # Each face alone: the pixels of all faces together are the picture, each once.
        def alone(face, case=case):
            return (
                rasterize(case.vertices_clip, face[None], case.size, implementation=implementation).face_index
                == 0
            )

        total = np.asarray(jax.jit(jax.vmap(alone))(jnp.asarray(case.faces))).sum(0)[..., 0]
        np.testing.assert_array_equal(total, 1)


def test_an_edge_through_centres_belongs_to_one_side(implementation):
    # A square cut along its diagonal, corners and cut on pixel centres, all exact in float32.
    size = (8, 8)
    vertices = clip_from_pixels([[1.5, 1.5], [6.5, 1.5], [6.5, 6.5], [1.5, 6.5]], size)
    for faces in ([[0, 1, 2], [0, 2, 3]], [[0, 2, 1], [0, 2, 3]], [[2, 0, 1], [3, 0, 2]]):
        fragments = draw(vertices, faces, size, implementation)
        assert int(np.sum(fragments.face_index >= 0)) == 25  # half open: 5 by 5 of the 6 by 6 centres
        assert int(np.sum(fragments.face_index == 0)) + int(np.sum(fragments.face_index == 1)) == 25


def test_back_faces_are_drawn_and_empty_triangles_are_not(implementation):
    size = (8, 8)
    vertices = clip_from_pixels([[0, 0], [8, 0], [0, 8], [4, 4]], size)
    turned = draw(vertices, [[0, 2, 1]], size, implementation)
    assert (
        int(np.sum(turned.face_index == 0))
        == int(np.sum(draw(vertices, [[0, 1, 2]], size, implementation).face_index == 0))
        > 0
    )
    for empty in ([0, 0, 1], [0, 0, 0], [1, 3, 2]):
        fragments = draw(vertices, [empty], size, implementation)
        assert np.all(fragments.face_index == -1) and np.all(np.isfinite(fragments.barycentric))


@pytest.mark.parametrize("shape", ["faces", "vertices", "picture"])
def test_nothing_to_draw_is_no_error(implementation, shape):
    vertices, faces, size = np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int32), (4, 3)
    if shape == "faces":
        faces = faces[:0]
    elif shape == "vertices":
        vertices = vertices[:0]
    else:
        size = (0, 3)
    fragments = rasterize(vertices, faces, size, implementation=implementation)
    assert fragments.face_index.shape == (*size, 1) and np.all(fragments.face_index == -1)
    assert np.all(fragments.barycentric == 0)


def test_both_implementations_show_the_same_faces(both_implementations):
    drawn = 0
    for seed in range(100):
        case = random_case(seed)
        native, reference = (draw(*case, name) for name in ("native", "reference"))
        np.testing.assert_array_equal(native.face_index, reference.face_index, err_msg=f"random_case({seed})")
        for value in (native.barycentric, native.depth, reference.barycentric, reference.depth):
            assert np.all(np.isfinite(value)), f"random_case({seed})"
        drawn += int(np.sum(native.face_index >= 0))
    assert drawn > 5000  # the scenes show something


@pytest.mark.slow
def test_both_implementations_show_the_same_faces_of_a_dense_mesh(both_implementations):
    for triangles, size in ((22_000, (224, 224)), (60_000, (120, 300))):
        case = ball_case(triangles, size)
        native, reference = (draw(*case, name) for name in ("native", "reference"))
        np.testing.assert_array_equal(native.face_index, reference.face_index)
        # Triangles of a pixel or less seen edge on: their weights are quotients of small differences.
        np.testing.assert_allclose(native.barycentric, reference.barycentric, atol=5e-3)


@pytest.mark.exhaustive
def test_both_implementations_show_the_same_faces_of_a_thousand_scenes(both_implementations):
    for seed in range(100, 1100):
        case = random_case(seed)
        native, reference = (draw(*case, name) for name in ("native", "reference"))
        np.testing.assert_array_equal(native.face_index, reference.face_index, err_msg=f"random_case({seed})")


def test_moving_the_mesh_by_whole_pixels_moves_the_picture(implementation):
    size = (40, 40)
    case = ball_case(200, size)
    moved = case.vertices_clip.copy()
    moved[:, 0] += 3 * 2 / 40 * moved[:, 3]
    moved[:, 1] -= 2 * 2 / 40 * moved[:, 3]
    first, second = (draw(v, case.faces, size, implementation) for v in (case.vertices_clip, moved))
    # Pixels whose centre is on an edge to within rounding may change: here none is.
    np.testing.assert_array_equal(first.face_index[2:, :-3], second.face_index[:-2, 3:])
    # Depth is of order 1 and rounded to 1e-7; subtracting the shift loses a few bits more.
    np.testing.assert_allclose(first.depth[2:, :-3], second.depth[:-2, 3:], atol=1e-5)


def test_derivatives_are_those_of_finite_differences(implementation):
    size = (12, 14)
    case = ball_case(60, size)
    fragments = draw(*case, implementation)
    shown = np.asarray(fragments.face_index[..., 0])
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(size=value.shape)
        for value in (fragments.barycentric, fragments.depth, fragments.signed_distance)
    ]

    def measure(vertices):
        f = rasterize(vertices, case.faces, size, implementation=implementation)
        values = (f.barycentric, f.depth, f.signed_distance)
        return sum(jnp.sum(w * v) for w, v in zip(weights[:2], values[:2], strict=True)), values

    direction = rng.normal(size=case.vertices_clip.shape).astype(np.float32) * 0.1
    gradient = jax.jit(jax.grad(lambda v: measure(v)[0]))(jnp.asarray(case.vertices_clip))
    (_, values), (rate, rates) = jax.jit(lambda v, d: jax.jvp(measure, (v,), (d,)))(
        case.vertices_clip, direction
    )

    def exact(vertices):
        # The same quantities in double precision for the faces that are shown.
        rows, columns = np.nonzero(shown >= 0)
        corner = vertices[case.faces[shown[rows, columns]]]
        half = np.array([size[1], size[0]]) / 2
        p = (corner[..., :2] + corner[..., 3:]) * half - corner[..., 3:] * np.stack([columns, rows], -1)[
            :, None
        ]
        p = p - 0.5 * corner[..., 3:]
        edge = np.stack(
            [p[:, a, 0] * p[:, b, 1] - p[:, a, 1] * p[:, b, 0] for a, b in ((1, 2), (2, 0), (0, 1))], -1
        )
        b = edge / edge.sum(-1, keepdims=True)
        return b, (b * corner[..., 2]).sum(-1) / (b * corner[..., 3]).sum(-1)

    start, step = case.vertices_clip.astype(np.float64), 1e-5
    high, low = exact(start + step * direction), exact(start - step * direction)
    hit = shown >= 0
    total = 0.0
    for w, ours, up, down in zip(weights, rates, high, low, strict=False):
        expected = (up - down) / (2 * step)
        np.testing.assert_allclose(
            np.asarray(ours)[hit][:, 0], expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max()
        )
        total += float(np.sum(w[hit][:, 0] * expected))
    np.testing.assert_allclose(rate, total, rtol=1e-3)
    np.testing.assert_allclose(float(np.sum(np.asarray(gradient, np.float64) * direction)), total, rtol=1e-3)


def test_forward_and_reverse_mode_agree(implementation):
    size = (10, 8)
    case = ball_case(40, size)

    def depth_sums(vertices):
        f = rasterize(vertices, case.faces, size, implementation=implementation)
        return jnp.stack([jnp.sum(f.depth), jnp.sum(f.barycentric[..., 0] ** 2)])

    vertices = jnp.asarray(case.vertices_clip)
    forward, reverse = jax.jit(jax.jacfwd(depth_sums))(vertices), jax.jit(jax.jacrev(depth_sums))(vertices)
    np.testing.assert_allclose(forward, reverse, rtol=1e-3, atol=1e-3 * float(jnp.abs(reverse).max()))


def test_a_batch_is_its_elements(implementation):
    size = (20, 24)
    case = ball_case(120, size)
    shifts = jnp.asarray([[0, 0, 0, 0], [0.3, 0.1, 0, 0], [0, 0, 0.1, 0.2]], jnp.float32)
    batch = case.vertices_clip[None] + shifts[:, None]

    def value(vertices):
        f = rasterize(vertices, case.faces, size, implementation=implementation)
        return jnp.sum(f.barycentric[..., 1] * f.depth), f

    together_gradient, together = jax.jit(jax.vmap(jax.grad(value, has_aux=True)))(batch)
    nested = jax.jit(jax.vmap(jax.vmap(value)))(jnp.stack([batch, batch[::-1]]))[1]
    alone = jax.jit(jax.grad(value, has_aux=True))
    for k in range(3):
        gradient, single = alone(batch[k])
        np.testing.assert_array_equal(together.face_index[k], single.face_index)
        np.testing.assert_array_equal(nested.face_index[1, 2 - k], single.face_index)
        np.testing.assert_allclose(together.barycentric[k], single.barycentric, atol=1e-5)
        np.testing.assert_allclose(
            together_gradient[k], gradient, rtol=1e-3, atol=1e-3 * float(jnp.abs(gradient).max())
        )


def test_the_same_input_gives_the_same_bits(implementation):
    case = ball_case(800, (64, 64))
    function = jax.jit(
        jax.grad(
            lambda v: jnp.sum(
                rasterize(v, case.faces, case.size, implementation=implementation).barycentric[..., 0] ** 2
            )
        )
    )
    first, second = function(case.vertices_clip), function(case.vertices_clip)
    np.testing.assert_array_equal(first, second)


def test_what_is_not_supported_is_refused(implementation):
    vertices, faces = np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match="vertices_clip must be"):
        rasterize(vertices[:, :3], faces, (4, 4), implementation=implementation)
    with pytest.raises(ValueError, match="implementation must be"):
        rasterize(vertices, faces, (4, 4), implementation="fast")
