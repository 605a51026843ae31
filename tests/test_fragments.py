"""Several fragments a pixel: which triangles count, what their fragments hold, and how both implementations
agree on it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import rasterize
from facefit_kernels.rasterization.cases import ball_case, random_case

OPERATION = "fragments"  # which implementations there are depends on it; see conftest.py

BLUR = 1.3


def clip_from_pixels(points, size, z=0.0, w=1.0):
    """Clip coordinates of points given in pixels."""
    ndc = np.asarray(points, np.float32) * 2 / np.array([size[1], size[0]], np.float32) - 1
    ones = np.ones(len(ndc), np.float32)
    return np.stack([ndc[:, 0] * w, ndc[:, 1] * w, z * ones * w, ones * w], axis=1).astype(np.float32)


@functools.cache
def compiled(size, fragments, blur, implementation):
    return jax.jit(
        lambda v, f: rasterize(v, f, size, fragments=fragments, blur=blur, implementation=implementation)
    )


def draw(vertices, faces, size, fragments, blur, implementation):
    function = compiled(tuple(size), fragments, blur, implementation)
    return function(jnp.asarray(vertices), jnp.asarray(faces, jnp.int32))


def in_double_precision(vertices, faces, size, blur):
    """Every fragment by the definition: lists of (depth, face, signed distance, barycentric) a pixel, nearest
    first. For triangles in front of the camera.
    """
    half = np.array([size[1], size[0]]) / 2
    corner = vertices.astype(np.float64)[faces]
    screen = (corner[..., :2] / corner[..., 3:] + 1) * half
    found = {}
    for row in range(size[0]):
        for column in range(size[1]):
            p = screen - (column + 0.5, row + 0.5)
            edges = np.stack(
                [p[:, a, 0] * p[:, b, 1] - p[:, a, 1] * p[:, b, 0] for a, b in ((1, 2), (2, 0), (0, 1))],
                1,
            )
            weights = edges / edges.sum(1, keepdims=True)
            inside = (weights > 0).all(1)
            distance = np.full(len(faces), np.inf)
            for a, b in ((1, 2), (2, 0), (0, 1)):
                along = p[:, b] - p[:, a]
                t = np.clip(-(p[:, a] * along).sum(1) / (along**2).sum(1), 0, 1)
                distance = np.minimum(distance, np.linalg.norm(p[:, a] + t[:, None] * along, axis=1))
            weights = np.maximum(weights, 0) / corner[..., 3]
            weights /= weights.sum(1, keepdims=True)
            depth = (weights * corner[..., 2]).sum(1) / (weights * corner[..., 3]).sum(1)
            chosen = np.flatnonzero((inside | (distance < blur)) & (abs(depth) <= 1))
            chosen = chosen[np.argsort(depth[chosen], kind="stable")]
            signed = np.where(inside, distance, -distance)
            found[row, column] = [(depth[f], f, signed[f], weights[f]) for f in chosen]
    return found


def test_fragments_of_one_triangle_are_those_worked_out_by_hand(implementation):
    # A right triangle with legs of 4 pixels; pixel (row 1, column 0) has its centre at (0.5, 1.5), inside.
    size = (8, 8)
    vertices = clip_from_pixels([[0, 0], [4, 0], [0, 4]], size)
    vertices[:, 2] = [0.1, 0.2, 0.6]
    drawn = draw(vertices, [[0, 1, 2]], size, 2, 1.0, implementation)
    assert np.all(drawn.face_index[..., 1] == -1)
    np.testing.assert_allclose(drawn.signed_distance[1, 0, 0], 0.5, atol=1e-6)
    np.testing.assert_allclose(drawn.barycentric[1, 0, 0], [0.5, 0.125, 0.375], atol=1e-6)
    # The centre (2.5, 2.5) is sqrt(1/2) beyond the hypotenuse; its weights (-1/4, 5/8, 5/8) are clipped to
    # (0, 1/2, 1/2).
    np.testing.assert_allclose(drawn.signed_distance[2, 2, 0], -np.sqrt(0.5), atol=1e-6)
    np.testing.assert_allclose(drawn.barycentric[2, 2, 0], [0, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(drawn.depth[2, 2, 0], 0.4, atol=1e-6)
    # The centre (4.5, 0.5) is nearest to the corner (4, 0), sqrt(1/2) away.
    np.testing.assert_allclose(drawn.signed_distance[0, 4, 0], -np.sqrt(0.5), atol=1e-6)
    # The centre (3.5, 2.5) is sqrt(2) away: too far.
    assert drawn.face_index[2, 3, 0] == -1 and drawn.signed_distance[2, 3, 0] == 0
    assert drawn.depth[2, 3, 0] == 1 and np.all(drawn.barycentric[2, 3, 0] == 0)


def test_the_nearest_in_depth_are_kept_nearest_first(implementation):
    size = (4, 4)
    large = [[-9, -9], [29, -9], [-9, 29]]
    vertices = np.concatenate([clip_from_pixels(large, size, z) for z in (0.5, -0.25, 0.1, -0.25)])
    faces = np.arange(12).reshape(4, 3)
    for count, expected in ((2, [1, 3]), (3, [1, 3, 2]), (5, [1, 3, 2, 0, -1])):
        drawn = draw(vertices, faces, size, count, 0.0, implementation)
        np.testing.assert_array_equal(drawn.face_index, np.broadcast_to(expected, (4, 4, count)))


@pytest.mark.parametrize("fragments,blur", [(4, 0.0), (1, BLUR), (8, BLUR)])
def test_fragments_are_those_of_the_definition(implementation, fragments, blur):
    size = (17, 13)
    case = ball_case(150, size)
    drawn = jax.tree.map(np.asarray, draw(*case, fragments, blur, implementation))
    expected = in_double_precision(*case, blur)
    compared = 0
    for (row, column), wanted in expected.items():
        shown = [int(f) for f in drawn.face_index[row, column] if f >= 0]
        assert len(shown) == len(set(shown)) == min(fragments, len(wanted)), (row, column)
        values = {f: rest for _, f, *rest in wanted}
        for k, face in enumerate(shown):
            at = row, column, k
            # The depths in order are those of the definition; which of two faces clipped to one corner, at
            # one depth, comes first is a matter of rounding.
            np.testing.assert_allclose(drawn.depth[at], wanted[k][0], atol=1e-5)
            distance, weights = values[face]
            np.testing.assert_allclose(drawn.signed_distance[at], distance, atol=1e-4)
            # Triangles seen edge on have weights that are quotients of small differences.
            np.testing.assert_allclose(drawn.barycentric[at], weights, atol=2e-3)
            compared += 1
    assert compared > 150


def test_one_fragment_without_blur_is_the_first_of_many(implementation):
    case = ball_case(800, (40, 50))
    one, many = (draw(*case, count, 0.0, implementation) for count in (1, 4))
    np.testing.assert_array_equal(one.face_index[..., 0], many.face_index[..., 0])
    np.testing.assert_allclose(one.signed_distance[..., 0], many.signed_distance[..., 0], atol=1e-5)
    np.testing.assert_allclose(one.barycentric[..., 0, :], many.barycentric[..., 0, :], atol=1e-4)


def scenes_agree(seeds):
    drawn = 0
    for seed in seeds:
        case = random_case(seed)
        native, reference = (draw(*case, 4, BLUR, name) for name in ("native", "reference"))
        np.testing.assert_array_equal(native.face_index, reference.face_index, err_msg=f"random_case({seed})")
        for value in jax.tree.leaves((native, reference)):
            assert np.all(np.isfinite(value)), f"random_case({seed})"
        drawn += int(np.sum(native.face_index >= 0))
    return drawn


def test_both_implementations_keep_the_same_faces(both_implementations):
    # All of one size, so that they are compiled once.
    assert scenes_agree(range(3, 83, 4)) > 2000  # the scenes show something


@pytest.mark.exhaustive
def test_both_implementations_keep_the_same_faces_in_a_thousand_scenes(both_implementations):
    scenes_agree(range(100, 1100))


@pytest.mark.exhaustive
def test_both_implementations_keep_the_same_faces_of_a_dense_mesh(both_implementations):
    case = ball_case(22_000, (224, 224))
    native, reference = (draw(*case, 8, 0.7, name) for name in ("native", "reference"))
    np.testing.assert_array_equal(native.face_index, reference.face_index)
    np.testing.assert_allclose(native.signed_distance, reference.signed_distance, atol=1e-3)


def test_derivatives_are_those_of_finite_differences(implementation):
    size, count = (12, 14), 6
    case = ball_case(60, size)
    rng = np.random.default_rng(0)
    shape = (*size, count)
    weights = [rng.normal(size=s) for s in ((*shape, 3), shape, shape)]
    direction = rng.normal(size=case.vertices_clip.shape).astype(np.float32) * 0.1

    def measure(vertices):
        f = rasterize(vertices, case.faces, size, count, BLUR, implementation)
        values = (f.barycentric, f.depth, f.signed_distance)
        return sum(jnp.sum(w * v) for w, v in zip(weights, values)), f

    gradient, drawn = jax.jit(jax.grad(measure, has_aux=True))(jnp.asarray(case.vertices_clip))
    rate = jax.jit(lambda v, d: jax.jvp(lambda v: measure(v)[0], (v,), (d,))[1])(
        case.vertices_clip, direction
    )
    step, total = 1e-6, 0.0
    high, low = (
        in_double_precision(case.vertices_clip + sign * step * direction.astype(np.float64), *case[1:], BLUR)
        for sign in (1, -1)
    )
    for (row, column), entries in high.items():
        sides = [{f: (b, z, d) for z, f, d, b in found} for found in (entries, low[row, column])]
        for k, face in enumerate(np.asarray(drawn.face_index[row, column])):
            if face >= 0:
                for part, w in enumerate(weights):
                    up, down = (side[face][part] for side in sides)
                    total += np.sum(w[row, column, k] * (up - down)) / (2 * step)
    reverse = float(np.sum(np.asarray(gradient, np.float64) * direction))
    # Sums of some thousand terms of order ten in float32.
    np.testing.assert_allclose([rate, reverse], total, rtol=2e-3)


def test_a_batch_is_its_elements(implementation):
    size = (20, 24)
    case = ball_case(120, size)
    batch = case.vertices_clip + np.array([[0, 0, 0, 0], [0.3, 0.1, 0, 0]], np.float32)[:, None]

    def value(vertices):
        f = rasterize(vertices, case.faces, size, 3, BLUR, implementation)
        return jnp.sum(f.barycentric[..., 1] * f.depth + f.signed_distance), f

    together_gradient, together = jax.jit(jax.vmap(jax.grad(value, has_aux=True)))(batch)
    alone = jax.jit(jax.grad(value, has_aux=True))
    for k in range(2):
        gradient, single = alone(batch[k])
        np.testing.assert_array_equal(together.face_index[k], single.face_index)
        scale = float(jnp.abs(gradient).max())
        np.testing.assert_allclose(together_gradient[k], gradient, rtol=1e-3, atol=1e-3 * scale)


def test_a_triangle_through_the_camera_plane_is_not_blurred(implementation):
    size = (16, 16)
    vertices = np.array([[-90, 1, -1, -40], [90, 1, -1, -40], [0, 1, -1, 4000]], np.float32)
    hard, soft = (draw(vertices, [[0, 1, 2]], size, 2, blur, implementation) for blur in (0.0, BLUR))
    np.testing.assert_array_equal(hard.face_index, soft.face_index)
    assert np.any(hard.face_index >= 0)


def test_what_is_not_supported_is_refused(implementation):
    vertices, faces = np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match="fragments must be at least 1"):
        rasterize(vertices, faces, (4, 4), fragments=0, implementation=implementation)
    for blur in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="blur must be"):
            rasterize(vertices, faces, (4, 4), blur=blur, implementation=implementation)


@pytest.mark.parametrize("empty", ["faces", "vertices", "picture"])
def test_nothing_to_draw_is_no_error(implementation, empty):
    vertices, faces, size = np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int32), (4, 3)
    vertices = vertices[:0] if empty == "vertices" else vertices
    faces = faces[:0] if empty == "faces" else faces
    size = (0, 3) if empty == "picture" else size
    drawn = rasterize(vertices, faces, size, 2, BLUR, implementation)
    assert drawn.face_index.shape == (*size, 2) and np.all(drawn.face_index == -1)
    assert np.all(drawn.barycentric == 0)
