"""The energy's terms against closed forms, and the photometric term against the renderer it stands for."""

import facefit_kernels
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from facefit.color import srgb_to_linear
from facefit.energy.landmarks import LandmarkEvidence, facing, landmark_residuals, match_outline
from facefit.energy.photometric import photometric_residuals, ray_barycentric, rendered_colors
from facefit.energy.priors import distance_residual, expression_residuals, lighting_residuals
from facefit.energy.robust import geman_mcclure
from facefit.render import clip_coordinates, intrinsics, project, render, shade
from facefit.rotations import matrix_from_axis_angle

SIZE = (40, 48)
FOCAL, CENTER = 260.0, np.float32([25.2, 18.9])
MIDDLE, RADIUS = np.float32([3, 4, 500]), 28.0
LIGHT = np.random.default_rng(0).normal(0, 0.25, (9, 3)).astype(np.float32)
LIGHT[0] = 1.0
SPHERE = trimesh.creation.icosphere(subdivisions=4)
DIRECTIONS, FACES = np.asarray(SPHERE.vertices, np.float32), np.asarray(SPHERE.faces, np.int32)
POINTS = DIRECTIONS * RADIUS + MIDDLE
COLORS = np.float32([0.5, 0.4, 0.3]) * (1 + 0.3 * np.sin(3 * DIRECTIONS))
MATRIX = np.asarray(intrinsics(FOCAL, CENTER))


def test_geman_mcclure_is_quadratic_when_small_and_bounded_when_large():
    r = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32) * np.logspace(-3, 4, 200)[:, None]
    squared = (r**2).sum(-1)
    robust = (np.asarray(geman_mcclure(jnp.float32(r), 3.0)) ** 2).sum(-1)
    np.testing.assert_allclose(robust, squared / (1 + squared / 9), rtol=1e-5)
    assert robust.max() <= 9 * (1 + 1e-6)
    # Only the length is changed, so a rotated residual gives the rotated result.
    np.testing.assert_allclose(
        geman_mcclure(jnp.float32(r[:, ::-1]), 3.0), geman_mcclure(r, 3.0)[:, ::-1], rtol=1e-5
    )


def test_an_outlier_s_pull_fades():
    slope = jax.vmap(jax.grad(lambda x: geman_mcclure(x[None], 2.0)[0]))(jnp.float32([0, 1, 4, 100]))
    np.testing.assert_allclose(slope, (1 + np.array([0, 1, 4, 100]) ** 2 / 4) ** -1.5, rtol=1e-3)


def test_landmark_residuals_are_differences_in_standard_deviations():
    projected = jnp.float32([[10, 20], [30, 40], [50, 60], [70, 80]])
    offset = np.float32([[2, -4], [3, 0], [0, 5], [9, 9]])
    normal = np.float32([0.6, 0.8])
    whitening = np.stack([np.eye(2) / 2, np.eye(2) / 2, np.outer(normal, normal) / 2, np.eye(2) / 2])
    evidence = LandmarkEvidence(projected - offset, jnp.float32(whitening), jnp.float32([1, 0.25, 1, 0]))
    found = np.asarray(landmark_residuals(projected, evidence, 1e6))
    # Of the third only the part along its direction counts (0.8 * 5 / 2 = 2), and the last not at all.
    np.testing.assert_allclose(found, [[1, -2], [0.75, 0], [1.2, 1.6], [0, 0]], atol=1e-5)
    along = evidence.replace(observed=evidence.observed + jnp.float32([[0, 0], [0, 0], [-8, 6], [0, 0]]))
    np.testing.assert_allclose(landmark_residuals(projected, along, 1e6), found, atol=1e-5)
    far = evidence.replace(observed=evidence.observed + 1e5)
    # However wrong a landmark is, it costs at most its weight times the square of the scale.
    cost = (np.asarray(landmark_residuals(projected, far, 3.0)) ** 2).sum(-1)
    np.testing.assert_allclose(cost, [9, 9 / 4, 9, 0], rtol=1e-3)


def test_facing_is_the_cosine_to_the_camera():
    cosine = np.asarray(facing(POINTS, DIRECTIONS))
    towards = -POINTS / np.linalg.norm(POINTS, axis=-1, keepdims=True)
    np.testing.assert_allclose(cosine, (towards * DIRECTIONS).sum(-1), atol=1e-5)
    # A sphere shows slightly less than half of itself: what is nearer than the tangent cone.
    assert (cosine > 0).mean() == pytest.approx((1 - RADIUS / np.linalg.norm(MIDDLE)) / 2, abs=0.02)


def test_the_outline_of_a_sphere_is_found_and_pulls_outwards_only():
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radial = np.stack([np.cos(angle), np.sin(angle)], -1)
    center = MIDDLE[:2] / MIDDLE[2] * FOCAL + CENTER
    outline_radius = FOCAL * RADIUS / np.sqrt(MIDDLE[2] ** 2 - RADIUS**2)  # but for the sphere's small offset
    pixels = np.asarray(project(POINTS, MATRIX))
    observed = jnp.float32(center + radial * (outline_radius + 2.0))
    own_facing = jnp.float32([0.0] * 4 + [0.35] * 4 + [0.9] * 4)
    found = jax.jit(match_outline)(
        POINTS, DIRECTIONS, pixels, observed, own_facing, jnp.float32(2 * outline_radius)
    )
    chosen = np.asarray(found.vertex)
    # Within the mesh's spacing (1/13 of the radius) of the right place, and edge-on.
    assert np.abs(np.asarray(facing(POINTS[chosen], DIRECTIONS[chosen]))).max() < 0.15
    assert np.linalg.norm(pixels[chosen] - (center + radial * outline_radius), axis=-1).max() < 1.5
    assert (np.asarray(found.normal) * radial).sum(-1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(found.normal, axis=-1), 1, atol=1e-5)
    weight = np.asarray(found.weight)
    # A landmark whose own point faces the camera is no outline point; in between it is half of one.
    assert (weight[:4] == 1).all() and (weight[8:] == 0).all()
    assert ((weight[4:8] > 0) & (weight[4:8] < 1)).all()


@pytest.fixture(scope="module")
def seen():
    """The sphere through the real renderer, and the pixels well inside it."""

    @jax.jit
    def draw():
        colors = shade(COLORS, jnp.asarray(DIRECTIONS), LIGHT)
        drawn = render(jnp.asarray(POINTS), colors, FACES, MATRIX, SIZE)
        return drawn, facefit_kernels.rasterize(
            clip_coordinates(jnp.asarray(POINTS), MATRIX, SIZE), FACES, SIZE
        )

    drawn, fragments = jax.tree.map(np.asarray, draw())
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    center = MIDDLE[:2] / MIDDLE[2] * FOCAL + CENTER
    rows, columns = np.nonzero(np.hypot(x - center[0], y - center[1]) < 11.5)  # the outline is at 14.6
    corner = FACES[fragments.face_index[rows, columns, 0]]
    ray = np.stack([x, y], -1)[rows, columns] - CENTER
    assert len(rows) > 350
    return {
        "colors": drawn.image[rows, columns],
        "barycentric": fragments.barycentric[rows, columns, 0],
        "corner": corner,
        "ray": jnp.float32(ray),
    }


def test_rays_meet_triangles_where_the_rasterizer_says(seen):
    a, b, c = (POINTS[seen["corner"][:, k]] for k in range(3))
    direction = np.concatenate([seen["ray"] / FOCAL, np.ones((len(seen["ray"]), 1), np.float32)], -1)
    found = np.asarray(jax.jit(ray_barycentric)(a, b, c, direction))
    # Triangles are 2 mm wide at 500 mm: the volumes lose four of seven digits.
    np.testing.assert_allclose(found, seen["barycentric"], atol=2e-3)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    meeting = np.einsum("mk,mkc->mc", found, POINTS[seen["corner"]])
    np.testing.assert_allclose(meeting / meeting[:, 2:], direction, atol=2e-5)


def colors_at(seen, points, light=LIGHT, focal=FOCAL):
    return rendered_colors(
        points[seen["corner"]], DIRECTIONS[seen["corner"]], COLORS[seen["corner"]], light, focal, seen["ray"]
    )


def test_the_photometric_term_sees_what_the_renderer_draws(seen):
    found = np.asarray(jax.jit(lambda points: colors_at(seen, points))(POINTS))
    # The renderer shades the vertices, this shades the pixels: they differ by the light's curvature in a
    # triangle.
    np.testing.assert_allclose(found, seen["colors"], atol=3e-3)
    assert np.ptp(found) > 0.2


def test_derivatives_of_pixel_colors_match_a_moved_sphere(seen):
    """By translation, radius, focal length and light, against differences of the term with fresh
    barycentrics.
    """

    def colors(p):
        points = DIRECTIONS * (RADIUS + p[3]) + MIDDLE + p[:3]
        return colors_at(seen, points, LIGHT + p[4], FOCAL * (1 + p[5]))

    jacobian = np.asarray(jax.jit(jax.jacfwd(colors))(jnp.zeros(6)))
    direction = np.concatenate([seen["ray"] / FOCAL, np.ones((len(seen["ray"]), 1))], -1)

    def exact(p):
        """A true sphere, in double precision."""
        ray = direction / np.array([1 + p[5], 1 + p[5], 1])
        middle, radius = MIDDLE + p[:3], RADIUS + p[3]
        a, b = (ray**2).sum(-1), ray @ middle
        distance = (b - np.sqrt(b**2 - a * (middle @ middle - radius**2))) / a
        normal = (distance[:, None] * ray - middle) / radius
        color = np.float32([0.5, 0.4, 0.3]) * (1 + 0.3 * np.sin(3 * normal))
        return np.asarray(shade(jnp.float32(color), jnp.float32(normal), LIGHT + np.float32(p[4])))

    for k, h in enumerate([0.5, 0.5, 2.0, 0.5, 0.05, 2e-3]):
        step = h * np.eye(6)[k]
        difference = (exact(step) - exact(-step)) / (2 * h)
        # Flat triangles instead of a sphere: colours vary by facets, most towards the rim.
        error = np.sqrt(np.mean((jacobian[..., k] - difference) ** 2) / np.mean(difference**2))
        assert error < 0.1, (k, error)


def test_a_sphere_that_turns_in_place_keeps_its_picture_apart_from_its_paint(seen):
    """The barycentric weights and the normals move against each other: with one colour all over, nothing
    changes.
    """

    def colors(turn):
        points = DIRECTIONS @ matrix_from_axis_angle(turn).T * RADIUS + MIDDLE
        corner = seen["corner"]
        plain = jnp.full((len(corner), 3, 3), 0.5)
        return rendered_colors(points[corner], DIRECTIONS[corner], plain, LIGHT, FOCAL, seen["ray"])

    def moved(shift):
        corner = seen["corner"]
        plain = jnp.full((len(corner), 3, 3), 0.5)
        return rendered_colors(
            POINTS[corner] + RADIUS * shift, DIRECTIONS[corner], plain, LIGHT, FOCAL, seen["ray"]
        )

    turned = np.asarray(jax.jit(jax.jacfwd(colors))(jnp.zeros(3)))
    shifted = np.asarray(jax.jit(jax.jacfwd(moved))(jnp.zeros(3)))
    assert np.sqrt(np.mean(turned**2)) < 0.12 * np.sqrt(np.mean(shifted**2))


def test_photometric_residuals_are_robust_differences_of_srgb_values():
    srgb = np.float32([[0.5, 0.4, 0.3], [0.9, 0.1, 0.2], [0.2, 0.2, 0.2]])
    other = srgb + np.float32([[0.05, 0, 0], [0, 0.1, -0.1], [0.3, 0.3, 0.3]])
    rendered, observed = srgb_to_linear(jnp.asarray(other)), srgb_to_linear(jnp.asarray(srgb))
    weight = jnp.float32([1, 0.25, 1])
    plain = np.asarray(photometric_residuals(rendered, observed, weight, 0.05, 1e6))
    np.testing.assert_allclose(plain, [[1, 0, 0], [0, 1, -1], [6, 6, 6]], atol=1e-3)
    robust = np.asarray(photometric_residuals(rendered, observed, weight, 0.05, 2.0))
    np.testing.assert_allclose((robust[2] ** 2).sum(), 108 / (1 + 108 / 4), rtol=1e-3)
    assert not np.asarray(photometric_residuals(observed, observed, weight, 0.05, 2.0)).any()
    # A pixel so dark that it is black, or brighter than white, has finite derivatives.
    gradient = jax.jacfwd(lambda c: photometric_residuals(c, observed, weight, 0.05, 2.0))(
        jnp.float32([[0, 0, 0], [2, 2, 2], [-1, 0.5, 0]])
    )
    assert np.isfinite(gradient).all()


def test_expression_prior():
    weights = jnp.float32([0, 0.5, 1, -0.1, 1.3])
    gaussian = np.asarray(expression_residuals(weights, 0.25, is_blendshape=False))
    np.testing.assert_allclose(gaussian, np.asarray(weights) / 0.25)
    bounded = np.asarray(expression_residuals(weights, 0.25, is_blendshape=True, bound_sigma=0.05))
    np.testing.assert_allclose(bounded, [*gaussian, 0, 0, 0, -2, 6], atol=1e-4)


def test_lighting_prior_is_zero_for_white_ambient_light_and_blind_to_its_strength():
    ambient = np.zeros((9, 3), np.float32)
    ambient[0] = 0.8
    np.testing.assert_allclose(lighting_residuals(ambient, 0.5, 0.2), 0, atol=1e-6)
    light = ambient.copy()
    light[3] = 0.4  # white, from the side: half the ambient
    found = np.asarray(lighting_residuals(light, 0.5, 0.2))
    np.testing.assert_allclose((found**2).sum(), 3 * (0.4 / (0.8 * 0.5)) ** 2, rtol=1e-5)
    light[0] = [1.1, 0.8, 0.5]
    bright = np.asarray(lighting_residuals(2 * light, 0.5, 0.2))
    np.testing.assert_allclose(bright, lighting_residuals(light, 0.5, 0.2), rtol=1e-4, atol=1e-6)
    assert (bright**2).sum() > (found**2).sum()
    assert np.isfinite(jax.jacfwd(lambda x: lighting_residuals(x, 0.5, 0.2))(jnp.zeros((9, 3)))).all()


def test_distance_prior_is_log_normal():
    assert float(distance_residual(jnp.float32(800), 800.0, 0.4)) == pytest.approx(0, abs=1e-5)
    assert float(distance_residual(jnp.float32(800 * np.exp(0.4)), 800.0, 0.4)) == pytest.approx(1, rel=1e-4)
    assert float(distance_residual(jnp.float32(400), 800.0, 0.4)) == pytest.approx(-np.log(2) / 0.4, rel=1e-4)
    assert np.isfinite(distance_residual(jnp.float32(-5), 800.0, 0.4))


def test_outline_normals_follow_a_rolled_picture():
    """A roll of the camera rolls everything: the same vertices are chosen, the normals turn along."""
    roll = np.asarray(matrix_from_axis_angle(jnp.float32([0, 0, 0.8])))
    matrix = np.diag([FOCAL, FOCAL, 1.0]).astype(np.float32)
    angle = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    observed = np.float32(14 * np.stack([np.cos(angle), np.sin(angle)], -1))
    ahead = POINTS * np.float32([0, 0, 1]) + DIRECTIONS * np.float32([RADIUS, RADIUS * 0.8, 0])
    match = jax.jit(match_outline)
    zero = jnp.zeros(9)
    straight = match(ahead, DIRECTIONS, project(ahead, matrix), observed, zero, jnp.float32(28))
    rolled_points = np.float32(ahead @ roll.T)
    rolled = match(
        rolled_points,
        np.float32(DIRECTIONS @ roll.T),
        project(rolled_points, matrix),
        np.float32(observed @ roll[:2, :2].T),
        zero,
        jnp.float32(28),
    )
    np.testing.assert_array_equal(rolled.vertex, straight.vertex)
    np.testing.assert_allclose(rolled.normal, straight.normal @ roll[:2, :2].T, atol=1e-5)
