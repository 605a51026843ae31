"""The renderer against pictures known in closed form: a lit sphere, and how much of each pixel it covers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from tiny_model import tiny_model

from facefit.model import albedo, mean_parameters, vertices
from facefit.render import (
    directions_to_camera,
    face_normals,
    intrinsics,
    render,
    render_face,
    shade,
    to_camera,
    vertex_normals,
)
from facefit.render.mesh import boundary_vertices, normalize

SIZE = (48, 64)
FOCAL, CENTER = 300.0, (33.3, 22.6)
MIDDLE, RADIUS = np.array([4.0, -3.0, 500.0]), 30.0
LIGHT = np.random.default_rng(0).normal(0, 0.2, (9, 3)).astype(np.float32)
LIGHT[0] = 1.0
ALBEDO = np.float32([0.5, 0.4, 0.3])


def ball(subdivisions: int = 4):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)


def rays(size=SIZE, subpixels: int = 1) -> np.ndarray:
    """Directions (z = 1) through the pixels, `subpixels` squared in each."""
    steps = (np.arange(subpixels) + 0.5) / subpixels
    y = (np.arange(size[0])[:, None] + steps).ravel()
    x = (np.arange(size[1])[:, None] + steps).ravel()
    x, y = np.meshgrid((x - CENTER[0]) / FOCAL, (y - CENTER[1]) / FOCAL)
    return np.stack([x, y, np.ones_like(x)], -1)


def sphere_hit(direction, middle=MIDDLE, radius=RADIUS):
    """Whether rays from the origin meet the sphere, and its outward normal there."""
    a = (direction**2).sum(-1)
    b = direction @ middle
    discriminant = b**2 - a * (middle @ middle - radius**2)
    distance = (b - np.sqrt(np.maximum(discriminant, 0))) / a
    return discriminant > 0, (distance[..., None] * direction - middle) / radius


def draw(points, normals, faces):
    colors = shade(jnp.asarray(ALBEDO), normals, jnp.asarray(LIGHT))
    return render(points, colors, faces, intrinsics(FOCAL, jnp.float32(CENTER)), SIZE)


@pytest.fixture(scope="module")
def picture():
    directions, faces = ball()
    points = jnp.float32(directions * RADIUS + MIDDLE)
    return jax.tree.map(np.asarray, jax.jit(draw)(points, vertex_normals(points, faces), faces))


def test_a_lit_sphere_has_the_colors_of_the_formula(picture):
    hit, normal = sphere_hit(rays())
    whole = sphere_hit(rays(subpixels=5))[0].reshape(SIZE[0], 5, SIZE[1], 5).all((1, 3))
    # A margin of a pixel, since antialiasing also mixes the first whole pixel beside the silhouette.
    inner = (
        whole & np.roll(whole, 1, 0) & np.roll(whole, -1, 0) & np.roll(whole, 1, 1) & np.roll(whole, -1, 1)
    )
    assert inner.sum() > 800 and hit[inner].all()
    expected = np.asarray(shade(jnp.asarray(ALBEDO), jnp.float32(normal), jnp.asarray(LIGHT)))
    np.testing.assert_allclose(picture.coverage[inner], 1, atol=1e-6)
    # Facets of 1/20 radian: the surface lies up to 1/3200 of the radius too deep, which turns the normal most
    # where it is seen edge-on.
    np.testing.assert_allclose(picture.image[inner], expected[inner], atol=0.01)
    assert np.abs(picture.image - expected)[inner].mean() < 5e-4


def test_a_sphere_covers_what_its_outline_encloses(picture):
    samples = 16
    exact = sphere_hit(rays(subpixels=samples))[0].reshape(SIZE[0], samples, SIZE[1], samples).mean((1, 3))
    border = (exact > 0) & (exact < 1)
    assert border.sum() > 60
    np.testing.assert_array_equal(picture.coverage[exact == 0], 0)
    # The antialiasing finds where the outline crosses the line between two pixel centres: exact for edges
    # along an axis, off by at most 1/8 for slanted ones plus what several crossings in one pixel add.
    difference = picture.coverage - exact
    assert np.abs(difference).max() < 0.35
    assert np.abs(difference[border]).mean() < 0.06
    assert picture.coverage.sum() == pytest.approx(exact.sum(), rel=2e-3)


def test_background_is_black_and_colors_are_weighed_by_coverage(picture):
    assert not picture.image[picture.coverage == 0].any()
    half = (picture.coverage > 0.2) & (picture.coverage < 0.8)
    # Divided by coverage, a border pixel has about the colour of the sphere's rim.
    rim = np.asarray(shade(jnp.asarray(ALBEDO), jnp.float32(sphere_hit(rays())[1]), jnp.asarray(LIGHT)))
    color = picture.image[half] / picture.coverage[half, None]
    assert np.abs(color - rim[half]).mean() < 0.02


def test_the_picture_moves_with_the_principal_point():
    directions, faces = ball(2)
    points = jnp.float32(directions * RADIUS + MIDDLE)
    colors = jnp.float32(0.5 + 0.5 * directions)

    @jax.jit
    def at(center):
        return render(points, colors, faces, intrinsics(FOCAL, center), SIZE)

    here, there = (np.asarray(at(jnp.float32(c)).image) for c in [(31.3, 22.6), (34.3, 24.6)])
    np.testing.assert_allclose(there[2:, 3:], here[:-2, :-3], atol=1e-4)


def test_derivatives_of_a_picture_match_differences_silhouettes_included():
    """d (sum of all pixels' weighted colours) / d (translation, radius, light)."""
    directions, faces = ball(3)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    weight = jnp.float32(np.stack([x / 64, y / 48, 0 * x + 1], -1))

    def total(p):
        points = directions * (RADIUS + p[3]) + jnp.float32(MIDDLE) + p[:3]
        colors = shade(jnp.asarray(ALBEDO), directions, LIGHT + p[4])
        image = render(points, colors, faces, intrinsics(FOCAL, jnp.float32(CENTER)), SIZE).image
        return jnp.sum(image * weight)

    zero, compiled = jnp.zeros(5), jax.jit(jax.grad(total))
    gradient = np.asarray(compiled(zero))
    forward = np.asarray(jax.jit(jax.jacfwd(total))(zero))
    # Two orders of summation in single precision.
    np.testing.assert_allclose(forward, gradient, atol=1e-3 * np.abs(gradient).max())

    def exact(p):
        """The same of a true sphere, 64 rays a pixel."""
        hit, normal = sphere_hit(rays(subpixels=8), MIDDLE + p[:3], RADIUS + p[3])
        colors = np.asarray(shade(jnp.asarray(ALBEDO), jnp.float32(normal), LIGHT + p[4])) * hit[..., None]
        return np.sum(colors.reshape(SIZE[0], 8, SIZE[1], 8, 3).mean((1, 3)) * np.asarray(weight))

    for k, h in enumerate([2.0, 2.0, 10.0, 1.0, 0.05]):
        step = h * np.eye(5, dtype=np.float32)[k]
        difference = float(exact(step) - exact(-step)) / (2 * h)
        # Where the outline crosses the lines between centres changes from place to place: the mean over the
        # step.
        found = np.mean([compiled(step * t)[k] for t in np.linspace(-1, 1, 9)])
        # The derivatives of the two sides, about 20 each, cancel to these in a translation.
        assert found == pytest.approx(difference, rel=0.02, abs=0.6), k


def test_normals_of_a_sphere_point_outwards_and_a_loose_vertex_has_none():
    directions, faces = ball(3)
    points = np.concatenate([directions * 50 + 7, [[0, 0, 0]]]).astype(np.float32)
    normals = np.asarray(vertex_normals(points, faces))
    assert (normals[:-1] * directions).sum(-1).min() > 0.999
    assert not normals[-1].any()
    areas = np.linalg.norm(face_normals(points, faces), axis=-1) / 2
    assert areas.sum() == pytest.approx(4 * np.pi * 50**2, rel=0.01)
    by_zero = jax.jacfwd(normalize)(jnp.zeros(3))
    assert np.isfinite(by_zero).all()


def test_boundary_vertices_are_those_of_a_hole():
    _, faces = ball(1)
    assert len(boundary_vertices(faces)) == 0
    np.testing.assert_array_equal(boundary_vertices(faces[1:]), np.sort(faces[0]))


def test_a_face_is_drawn_as_its_parts_say():
    """render_face is vertices, albedo, normals, light and camera put together."""
    model = tiny_model(subdivisions=2)
    parameters = mean_parameters(model, 2)
    views = parameters.views.replace(
        rotation=jnp.float32([[0.1, 0.2, -0.3], [0, 0, 0]]), lighting=jnp.float32([LIGHT, LIGHT])
    )
    parameters = parameters.replace(identity=jnp.float32([1, -1, 0.5, 2]), albedo=jnp.float32([0.3, -1]))
    first = parameters.replace(views=jax.tree.map(lambda leaf: leaf[0], views))
    matrix = intrinsics(200.0, jnp.float32([32, 24]))
    drawn = jax.jit(lambda m, p: render_face(m, p, matrix, SIZE))(model, first)

    @jax.jit
    def by_hand(model, p):
        points = vertices(model, p.identity, p.views.expression)
        placed = to_camera(points, p.views.rotation, p.views.translation)
        normals = vertex_normals(placed, model.faces)
        turned = directions_to_camera(vertex_normals(points, model.faces), p.views.rotation)
        colors = shade(albedo(model, p.albedo), normals, p.views.lighting)
        return render(placed, colors, model.faces, matrix, SIZE), normals, turned

    expected, normals, turned = by_hand(model, first)
    # Normals are found in the model frame and turned: the same as those of the turned mesh, since the half
    # turn about x is no reflection.
    np.testing.assert_allclose(normals, turned, atol=1e-4)
    np.testing.assert_allclose(drawn.image, expected.image, atol=1e-4)
    assert drawn.coverage.sum() > 300
