"""Culling: each operation that finds faces leaves out those seen from behind, and only those."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels import draw, neighbors, rasterize, soft_render
from facefit_kernels.drawing.cases import colors
from facefit_kernels.rasterization.cases import ball_case, random_case

BALL = ball_case(300, (28, 36))
COLORS = colors(BALL)


@functools.cache
def faces_of(size, fragments, cull, implementation):
    blur = 0.5 if fragments > 1 else 0.0
    return jax.jit(lambda v, f: rasterize(v, f, size, fragments, blur, implementation, cull).face_index)


def without_back(case):
    """The case's faces, those seen from behind replaced by ones that do not exist: by the sign of the volume
    that a triangle spans with the camera, in double precision.
    """
    x, y, _, w = np.moveaxis(case.vertices_clip.astype(np.float64), -1, 0)
    there = np.all((case.faces >= 0) & (case.faces < len(w)), axis=1)
    volume = np.linalg.det(np.stack([x, y, w], axis=-1)[np.where(there[:, None], case.faces, 0)])
    return np.where((volume > 0)[:, None], -1, case.faces)


def test_a_triangle_is_seen_where_its_corners_go_round_counter_clockwise(implementation):
    size, at = (8, 8), np.array([[-1, -1, 0, 1], [1, -1, 0, 1], [-1, 1, 0, 1]], np.float32)
    # To the right, then down to the left: clockwise.
    shown = [faces_of(size, 1, True, implementation)(at, np.array([f])) for f in ([0, 1, 2], [0, 2, 1])]
    assert np.all(shown[0] == -1) and np.any(shown[1] == 0)


def test_a_floor_through_the_cameras_plane_is_seen_from_above_only(implementation):
    size, (x, y, z) = (32, 32), np.array([[-90, 1, -40], [90, 1, -40], [0, 1, 4000]], np.float32).T
    at = np.stack([x, y, 0.9 * z, z], axis=1)
    both = faces_of(size, 1, False, implementation)
    culled = faces_of(size, 1, True, implementation)
    windings = [np.array([face], np.int32) for face in ([0, 1, 2], [0, 2, 1])]
    whole, (one, other) = both(at, windings[0]), (culled(at, winding) for winding in windings)
    assert np.sum(whole == 0) > 300
    np.testing.assert_array_equal(one, whole)
    assert np.all(other == -1)


def test_random_scenes_keep_what_is_not_seen_from_behind(implementation):
    left_out = 0
    for seed in range(0, 96, 4):  # of one size, compiled once
        case = random_case(seed)
        for fragments in (1, 3):
            culled = faces_of(case.size, fragments, True, implementation)(case.vertices_clip, case.faces)
            kept = faces_of(case.size, fragments, False, implementation)(
                case.vertices_clip, without_back(case)
            )
            np.testing.assert_array_equal(culled, kept, err_msg=f"random_case({seed}), {fragments} fragments")
        whole = faces_of(case.size, 1, False, implementation)(case.vertices_clip, case.faces)
        left_out += int(np.sum(culled[..., 0] != whole[..., 0]))
    assert left_out > 500  # the scenes have faces seen from behind


def test_a_closed_surface_is_drawn_as_without(implementation):
    adjacent = neighbors(BALL.faces)

    def drawn(cull):
        def picture(v, c):
            image, coverage = draw(v, c, BALL.faces, BALL.size, 1, implementation, adjacent, cull)
            return jnp.sum(image**2) + jnp.sum(coverage), (image, coverage)

        return jax.value_and_grad(picture, (0, 1), has_aux=True)(BALL.vertices_clip, COLORS)

    for culled, whole in zip(jax.tree.leaves(drawn(True)), jax.tree.leaves(drawn(False)), strict=True):
        np.testing.assert_array_equal(culled, whole)


def test_an_open_surface_shows_through_from_behind(implementation):
    front = BALL.faces[without_back(BALL)[:, 0] >= 0]
    turned = front[:, ::-1]  # only insides

    def coverage(faces, cull):
        return draw(BALL.vertices_clip, COLORS, faces, BALL.size, 1, implementation, None, cull)[1]

    np.testing.assert_array_equal(coverage(front, True), coverage(front, False))
    assert np.all(coverage(turned, True) == 0) and np.any(coverage(turned, False) == 1)


def test_a_soft_picture_is_that_of_the_faces_left(implementation):
    def picture(faces, cull):
        return soft_render(
            BALL.vertices_clip,
            faces,
            COLORS,
            BALL.size,
            np.zeros(3),
            0.05,
            0.1,
            8,
            None,
            implementation,
            cull,
        )

    culled, kept, whole = (
        picture(BALL.faces, True),
        picture(without_back(BALL), False),
        picture(BALL.faces, False),
    )
    for one, other in zip(culled, kept, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(culled[0] - whole[0]).max() > 1e-3  # with a soft depth the back shows through
