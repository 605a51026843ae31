"""Diffuse shading under distant light in second-order spherical harmonics (Ramamoorthi, Hanrahan 2001)."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

# Rows of a lighting matrix: 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2, each an orthonormal real harmonic of
# the normal's direction times the factor by which Lambert's cosine attenuates its order (pi, 2 pi / 3, pi /
# 4), divided by pi so that a white surface in constant light of radiance one reflects one; the first row is
# then 1 (not 0.2821), so that lighting[0] is the mean radiance that the surface reflects.
_FIRST = (2.0 / 3.0) * math.sqrt(3.0)
_SECOND = 0.25 * math.sqrt(15.0)
_AXIAL = 0.25 * math.sqrt(5.0) / 2.0


def sh_basis(normals: Float[Array, "... 3"]) -> Float[Array, "... 9"]:
    """The nine functions that `lighting` weighs.

    They are sqrt(4 pi) times the orthonormal real spherical harmonics of order 0, 1 and 2 times the clamped
    cosine's attenuation 1, 2/3 and 1/4.

    Args:
        normals: unit vectors in the frame of the light (facefit: the camera frame).
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return jnp.stack(
        [
            jnp.ones_like(x),
            _FIRST * y,
            _FIRST * z,
            _FIRST * x,
            _SECOND * x * y,
            _SECOND * y * z,
            _AXIAL * (3.0 * z * z - 1.0),
            _SECOND * x * z,
            0.5 * _SECOND * (x * x - y * y),
        ],
        axis=-1,
    )


def irradiance(normals: Float[Array, "... 3"], lighting: Float[Array, "9 3"]) -> Float[Array, "... 3"]:
    """Light reflected by a white Lambertian surface, linear RGB."""
    return sh_basis(normals) @ lighting


def shade(
    albedo: Float[Array, "... 3"], normals: Float[Array, "... 3"], lighting: Float[Array, "9 3"]
) -> Float[Array, "... 3"]:
    """Reflected light, linear RGB: albedo times irradiance. Not clipped."""
    return albedo * irradiance(normals, lighting)


def project_radiance(
    directions: Float[Array, "S 3"], radiance: Float[Array, "S 3"], solid_angle: Float[Array, " S"]
) -> Float[Array, "9 3"]:
    """Lighting coefficients of an environment given as samples: inverse of what `sh_basis` attenuates.

    Args:
        directions: unit vectors towards the light.
        radiance: linear RGB.
        solid_angle: steradians each sample stands for; they sum to 4 pi.
    """
    attenuation = jnp.asarray([1.0] + [2 / 3] * 3 + [1 / 4] * 5, jnp.float32)
    harmonics = sh_basis(directions) / attenuation
    return (harmonics * solid_angle[:, None]).T @ radiance / (4.0 * math.pi)
