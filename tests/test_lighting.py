"""Second-order spherical harmonics against what they stand for: closed forms, Lambert's cosine, and
rotations.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefit.render import irradiance, project_radiance, sh_basis, shade
from facefit.rotations import matrix_from_axis_angle

ATTENUATION = np.array([1] + [2 / 3] * 3 + [1 / 4] * 5)
BANDS = (slice(0, 1), slice(1, 4), slice(4, 9))


def quadrature(order: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Directions and solid angles that integrate polynomials of degree 2 order - 1 on the sphere exactly:
    Gauss-Legendre in z, equal steps in azimuth."""
    z, weight = np.polynomial.legendre.leggauss(order)
    angle = (np.arange(2 * order) + 0.5) * np.pi / order
    z, angle = (part.ravel() for part in np.meshgrid(z, angle, indexing="ij"))
    r = np.sqrt(1 - z**2)
    directions = np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)
    return directions.astype(np.float32), np.repeat(weight, 2 * order).astype(np.float32) * np.float32(
        np.pi / order
    )


DIRECTIONS, SOLID_ANGLE = quadrature()


def environment(seed: int = 0) -> np.ndarray:
    """Radiance in DIRECTIONS, positive, with all orders in it."""
    random = np.random.default_rng(seed)
    sharp = np.exp(DIRECTIONS @ random.normal(0, 1.5, (3, 3)))
    return sharp.astype(np.float32)


def order_two_cosine(cosine):
    """max(cosine, 0) up to order two (Ramamoorthi and Hanrahan 2001, section 3)."""
    return 1 / 4 + cosine / 2 + 5 / 32 * (3 * cosine**2 - 1)


def test_the_functions_are_orthogonal_with_the_stated_lengths():
    basis = np.asarray(sh_basis(DIRECTIONS), np.float64) / ATTENUATION
    gram = (basis * SOLID_ANGLE[:, None]).T @ basis / (4 * np.pi)
    np.testing.assert_allclose(gram, np.eye(9), atol=2e-6)


def test_a_white_surface_in_constant_light_reflects_that_light():
    lighting = project_radiance(DIRECTIONS, np.full((len(DIRECTIONS), 3), 0.7, np.float32), SOLID_ANGLE)
    np.testing.assert_allclose(lighting[0], 0.7, rtol=1e-5)
    np.testing.assert_allclose(lighting[1:], 0, atol=1e-6)
    np.testing.assert_allclose(irradiance(DIRECTIONS, lighting), 0.7, rtol=1e-5)
    np.testing.assert_allclose(
        shade(jnp.float32([0.5, 0.2, 0.1]), DIRECTIONS[0], lighting), [0.35, 0.14, 0.07], rtol=1e-5
    )


@pytest.mark.parametrize("towards", [[0, 0, 1], [0, -1, 0], [0.6, -0.48, -0.64]])
def test_one_lamp_gives_the_second_order_part_of_lambert_s_cosine(towards):
    towards = np.float32(towards)
    # Radiance times solid angle is pi: a white surface facing the lamp would reflect one.
    lighting = project_radiance(towards[None], np.ones((1, 3), np.float32), jnp.float32([np.pi]))
    aside = np.cross(towards, [0.36, 0.48, 0.8])
    aside /= np.linalg.norm(aside)
    cosine, weight = np.polynomial.legendre.leggauss(101)  # the middle one is exactly edge-on
    normals = cosine[:, None] * towards + np.sqrt(1 - cosine[:, None] ** 2) * aside
    reflected = np.asarray(irradiance(jnp.float32(normals), lighting), np.float64)[:, 0]
    np.testing.assert_allclose(reflected, order_two_cosine(cosine), atol=2e-6)
    # The paper's bounds for a single lamp, the worst light there is: the error is largest edge-on, 9.4 % of
    # the peak, and 99.22 % of the cosine's energy is kept (127 / 128); no light is lost on average.
    missed = reflected - np.maximum(cosine, 0)
    assert np.abs(missed).max() == pytest.approx(1 / 4 - 5 / 32, abs=1e-5)
    assert weight @ missed**2 / (weight @ np.maximum(cosine, 0) ** 2) == pytest.approx(1 / 128, rel=1e-2)
    assert weight @ missed == pytest.approx(0, abs=1e-3)


def test_irradiance_is_the_environment_convolved_with_the_cosine():
    """Any environment against the integral itself, at a few normals."""
    radiance = environment()
    lighting = project_radiance(DIRECTIONS, radiance, SOLID_ANGLE)
    normals = np.random.default_rng(1).normal(size=(8, 3))
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    cosine = np.maximum(normals @ DIRECTIONS.T, 0)
    exact = (cosine * SOLID_ANGLE) @ radiance / np.pi
    found = np.asarray(irradiance(normals, lighting))
    # Order three is zero, order four of a smooth environment small: 3 % of the average is the paper's figure
    # for natural light; these environments are within it.
    assert np.abs(found - exact).max() < 0.03 * exact.mean()


@pytest.mark.parametrize("axis_angle", [[0, 0, 0.7], [1.2, 0, 0], [0.5, -1.1, 2.0]])
def test_turning_the_light_turns_the_shading_and_keeps_every_order_s_energy(axis_angle):
    turn = np.asarray(matrix_from_axis_angle(jnp.float32(axis_angle)))
    radiance = environment(2)
    before = np.asarray(project_radiance(DIRECTIONS, radiance, SOLID_ANGLE))
    after = np.asarray(project_radiance(DIRECTIONS @ turn.T, radiance, SOLID_ANGLE))
    scale = np.linalg.norm(before)
    assert np.abs(after - before).max() > 0.05 * scale  # it did turn
    for band in BANDS:
        np.testing.assert_allclose(
            np.linalg.norm(after[band], axis=0), np.linalg.norm(before[band], axis=0), atol=2e-5 * scale
        )
    normals = DIRECTIONS[::50]
    np.testing.assert_allclose(
        irradiance(normals @ turn.T, after), irradiance(normals, before), atol=2e-5 * scale
    )


def test_lighting_is_recovered_from_the_radiance_it_describes():
    """project_radiance of an environment made of the nine harmonics gives their coefficients back."""
    lighting = np.random.default_rng(3).normal(size=(9, 3)).astype(np.float32)
    radiance = np.asarray(sh_basis(DIRECTIONS)) / ATTENUATION @ lighting
    found = project_radiance(DIRECTIONS, jnp.float32(radiance), SOLID_ANGLE)
    np.testing.assert_allclose(found, lighting, atol=2e-5)


def test_derivatives_match_differences():
    lighting = np.random.default_rng(4).normal(size=(9, 3)).astype(np.float32)
    albedo = jnp.float32([0.5, 0.3, 0.2])
    normal = jnp.float32([0.36, -0.48, 0.8])
    by_normal = np.asarray(jax.jacfwd(lambda n: shade(albedo, n, lighting))(normal))
    by_lighting = np.asarray(jax.jacfwd(lambda x: shade(albedo, normal, x))(lighting))
    h = 1e-2  # shading is quadratic in the normal, so central differences are exact but for rounding
    for k, step in enumerate(h * np.eye(3, dtype=np.float32)):
        difference = (shade(albedo, normal + step, lighting) - shade(albedo, normal - step, lighting)) / (
            2 * h
        )
        np.testing.assert_allclose(by_normal[:, k], difference, atol=2e-4)
    expected = np.einsum("c,k,cd->ckd", albedo, sh_basis(normal), np.eye(3))
    np.testing.assert_allclose(by_lighting, expected, atol=1e-6)
    assert math.isfinite(by_normal.sum())
