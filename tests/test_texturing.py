"""Texturing: closed forms of bilinear and mip-mapped sampling, gradients, and drawing in texture space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import interpolate, mip_level, rasterize, texture, unwrap
from facefit_kernels.rasterization.cases import ball_case
from facefit_kernels.texturing.cases import named

OPERATION = "texture"  # which implementations there are depends on it; see conftest.py

PICTURE, PLACES, LEVELS = named("smoke")


def sample(picture, coordinates, implementation, level=None, wrap=False):
    return np.asarray(
        texture(
            np.asarray(picture, np.float32), np.asarray(coordinates, np.float32), level, wrap, implementation
        )
    )


def test_a_texel_s_centre_is_its_value_and_row_zero_is_the_top(implementation):
    picture = np.arange(12.0).reshape(3, 4, 1)
    y, x = np.meshgrid(np.arange(3), np.arange(4), indexing="ij")
    places = np.stack([(x + 0.5) / 4, 1 - (y + 0.5) / 3], -1)
    np.testing.assert_allclose(sample(picture, places, implementation), picture, atol=1e-5)


def test_between_texels_the_value_is_bilinear(implementation):
    # A picture that is linear in x and y is reproduced between the outermost centres.
    y, x = np.meshgrid(np.arange(6) + 0.5, np.arange(8) + 0.5, indexing="ij")
    picture = np.stack([x, y, 2 * x - 3 * y], -1)
    u, v = np.random.default_rng(0).uniform([0.5 / 8, 0.5 / 6], [1 - 0.5 / 8, 1 - 0.5 / 6], (50, 2)).T
    px, py = u * 8, (1 - v) * 6
    expected = np.stack([px, py, 2 * px - 3 * py], -1)
    np.testing.assert_allclose(sample(picture, np.stack([u, v], -1), implementation), expected, atol=1e-4)


def test_outside_the_border_goes_on_or_the_picture_repeats(implementation):
    picture = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])  # rows from the top: v = 3/4 and v = 1/4
    places = np.array([[-9.0, 0.75], [9.0, 0.75], [0.25, -3.0], [0.25, 3.0]])
    np.testing.assert_allclose(sample(picture, places, implementation)[:, 0], [1, 2, 3, 1])
    np.testing.assert_allclose(
        sample(picture, [[2.25, -1.25], [-0.25, 5.25], [1.0, 0.75]], implementation, wrap=True)[:, 0],
        [1, 4, 1.5],
        atol=1e-6,
    )


def test_a_level_is_the_mean_of_its_texels_and_between_levels_the_value_is_linear(implementation):
    picture = np.random.default_rng(1).random((8, 16, 2)).astype(np.float32)
    half = picture.reshape(4, 2, 8, 2, 2).mean((1, 3))
    quarter = half.reshape(2, 2, 4, 2, 2).mean((1, 3))
    top = quarter.reshape(1, 2, 2, 2, 2).mean((1, 3))
    places = np.random.default_rng(2).random((40, 2)).astype(np.float32)
    levels = [sample(p, places, implementation) for p in (picture, half, quarter, top)]

    def at(level):
        return sample(picture, places, implementation, np.full(40, level, np.float32))

    for k, expected in enumerate(levels):
        np.testing.assert_allclose(at(k), expected, atol=1e-6)
    np.testing.assert_allclose(at(1.25), 0.75 * levels[1] + 0.25 * levels[2], atol=1e-6)
    np.testing.assert_allclose(at(-3), levels[0], atol=1e-6)
    np.testing.assert_allclose(at(99), levels[3], atol=1e-6)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("mip", [False, True])
def test_gradients_are_those_of_finite_differences(implementation, wrap, mip):
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(len(PLACES), 3)).astype(np.float32)

    def values(picture, places, level):
        return texture(picture, places, level if mip else None, wrap, implementation)

    def loss(*a):
        return jnp.sum(weight * values(*a))

    given = (PICTURE, PLACES, LEVELS)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*given)
    # Linear in the picture: exact.
    other = rng.normal(size=PICTURE.shape).astype(np.float32)
    change = float(
        np.sum(weight * (np.asarray(values(PICTURE + other, *given[1:])) - np.asarray(values(*given))))
    )
    np.testing.assert_allclose(np.sum(np.asarray(gradients[0], np.float64) * other), change, rtol=1e-3)
    # Piecewise smooth in the others: samples with no kink within the step, by far the most, each by itself.
    step = 1e-3
    for number, axis in ((1, 0), (1, 1), (2, None)):
        shift = np.zeros_like(given[number])
        shift[(..., axis) if axis is not None else ...] = step
        high, low = (
            np.asarray(values(*(v + sign * shift if i == number else v for i, v in enumerate(given))))
            for sign in (1, -1)
        )
        expected = np.sum(weight * (high - low), -1) / (2 * step)
        found = np.asarray(gradients[number])[(..., axis) if axis is not None else ...]
        # float32 differences of values of order one over steps of 2e-3.
        close = np.abs(found - expected) < 2e-3 * np.abs(expected).max() + 2e-3
        assert close.mean() > 0.93, (number, axis, close.mean())
    directions = tuple(rng.normal(size=v.shape).astype(np.float32) for v in given)
    tangent = jax.jit(lambda a, d: jax.jvp(loss, a, d)[1])(given, directions)
    reverse = sum(float(np.sum(np.asarray(g, np.float64) * d)) for g, d in zip(gradients, directions))
    np.testing.assert_allclose(tangent, reverse, rtol=1e-3)


def test_both_implementations_give_the_same_samples_and_gradients(both_implementations):
    def loss(picture, places, level, implementation, wrap):
        value = texture(picture, places, level, wrap, implementation)
        return jnp.sum(value**2), value

    for wrap in (False, True):
        native, reference = (
            jax.jit(
                jax.value_and_grad(lambda *a, n=name, w=wrap: loss(*a, n, w), argnums=(0, 1, 2), has_aux=True)
            )(PICTURE, PLACES, LEVELS)
            for name in ("native", "reference")
        )
        for ours, wanted in zip(jax.tree.leaves(native), jax.tree.leaves(reference)):
            np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max()))


def test_a_batch_is_its_elements(implementation):
    pictures = np.stack([PICTURE, PICTURE[::-1]])

    def loss(picture, places):
        return jnp.sum(texture(picture, places, LEVELS, False, implementation) ** 2)

    together = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1)), (0, None)))(pictures, PLACES)
    shared = jax.jit(jax.grad(lambda p: jnp.sum(jax.vmap(loss, (None, 0))(p, np.stack([PLACES, PLACES])))))(
        PICTURE
    )
    for k in range(2):
        alone = jax.jit(jax.grad(loss, argnums=(0, 1)))(pictures[k], PLACES)
        for ours, wanted in zip(together, alone):
            np.testing.assert_allclose(ours[k], wanted, rtol=1e-4, atol=1e-4)
        if k == 0:
            np.testing.assert_allclose(shared, 2 * alone[0], rtol=1e-4, atol=1e-4)


def test_what_is_not_finite_is_sampled_somewhere_and_has_no_gradient(implementation):
    places = np.array([[np.nan, 0.5], [np.inf, -np.inf], [0.3, 0.4]], np.float32)
    level = np.array([np.nan, np.inf, 1], np.float32)

    def loss(places, level):
        return jnp.sum(texture(PICTURE, places, level, False, implementation) ** 2)

    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(places, level)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients)
    assert np.all(np.asarray(gradients[0])[1] == 0)


def test_the_level_of_a_plane_facing_the_camera_is_the_logarithm_of_its_scale(implementation):
    # A square of 64 texels over 16 pixels: a pixel is 4 texels, level 2; twice as near, level 1.
    size = (16, 16)
    uv, faces = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    for scale, expected in ((1.0, 2.0), (2.0, 1.0)):
        x, y = scale * (2 * uv[:, 0] - 1), scale * (1 - 2 * uv[:, 1])
        w = np.full(4, 3.0)  # in perspective
        clip = np.stack([x * w, y * w, 0 * w, w], 1).astype(np.float32)
        drawn = rasterize(clip, faces, size, implementation=implementation)
        level = mip_level(clip, faces, drawn, uv, faces, (64, 64))
        np.testing.assert_allclose(level[drawn.face_index >= 0], expected, atol=1e-4)


def test_a_mip_mapped_picture_far_away_is_its_mean(implementation):
    # A checkerboard of single texels seen 8 texels a pixel: aliased without levels, grey with them.
    board = (np.indices((128, 128)).sum(0) % 2).astype(np.float32)[..., None]
    size = (16, 16)
    uv, faces = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    clip = np.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], 0 * uv[:, 0], 1 + 0 * uv[:, 0]], 1).astype(
        np.float32
    )
    drawn = rasterize(clip, faces, size, implementation=implementation)
    places = interpolate(uv, faces, drawn, implementation) + 0.25 / 128
    level = mip_level(clip, faces, drawn, uv, faces, board.shape[:2])
    np.testing.assert_allclose(texture(board, places, level, False, implementation), 0.5, atol=1e-6)
    assert np.abs(np.asarray(texture(board, places, None, False, implementation)) - 0.5).max() > 0.1


def test_baking_and_texturing_undo_each_other(implementation):
    # Vertex attributes drawn into a texture and read back through the coordinates are the interpolated ones.
    case = ball_case(200, (24, 24))
    count = len(case.faces)
    side = int(np.ceil(np.sqrt(count)))
    row, column = np.divmod(np.arange(count), side)
    corner = np.stack([column, row], -1)[:, None] + np.array([[0.15, 0.15], [0.85, 0.15], [0.15, 0.85]])
    uv, uv_faces = (corner / side).reshape(-1, 2), np.arange(3 * count).reshape(count, 3)
    colors = np.random.default_rng(0).random((len(case.vertices_clip), 3)).astype(np.float32)
    size = (side * 32, side * 32)
    atlas = unwrap(uv, uv_faces, size, implementation)
    baked = interpolate(colors, case.faces, atlas, implementation)[:, :, 0]
    drawn = rasterize(case.vertices_clip, case.faces, case.size, implementation=implementation)
    places = interpolate(uv, uv_faces, drawn, implementation)
    found = np.asarray(texture(baked, places, None, False, implementation))
    wanted = np.asarray(interpolate(colors, case.faces, drawn, implementation))
    # Away from the edges of the faces, where a sample mixes with texels that show nothing: a face is 22
    # texels wide.
    inside = np.asarray(drawn.barycentric.min(-1)) > 0.1
    assert inside.sum() > 30
    np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-4)
    # Baking is linear in the attributes; the sum of its weights is the number of texels shown.
    gradient = jax.grad(lambda a: jnp.sum(interpolate(a, case.faces, atlas, implementation)))(colors)
    np.testing.assert_allclose(np.sum(gradient), 3 * np.sum(atlas.face_index >= 0), rtol=1e-4)


def test_row_zero_of_an_unwrapped_mesh_is_at_the_top(implementation):
    atlas = unwrap(np.array([[0, 1], [1, 1], [0, 0.5]]), np.array([[0, 1, 2]]), (8, 8), implementation)
    assert atlas.face_index[0, 0, 0] == 0 and np.all(atlas.face_index[4:] == -1)


def test_shapes_that_do_not_belong_together_are_refused(implementation):
    for message, arguments in (
        ("picture must be", (PICTURE[0], PLACES)),
        ("picture must be", (PICTURE[:0], PLACES)),
        ("coordinates must be", (PICTURE, PLACES[:, :1])),
        ("level must be", (PICTURE, PLACES, LEVELS[:3])),
    ):
        with pytest.raises(ValueError, match=message):
            texture(*arguments, implementation=implementation)
    with pytest.raises(ValueError, match="uv must be"):
        unwrap(np.zeros((3, 3)), np.zeros((1, 3)), (4, 4), implementation)
