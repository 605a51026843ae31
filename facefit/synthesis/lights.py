"""Random light: ambient and one or two lamps or windows, as spherical harmonics that are never negative."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from facefit.render.lighting import sh_basis

_DARKEST = 0.04  # least irradiance on any side, as a share of the mean


@dataclasses.dataclass(frozen=True)
class Light:
    """A lit room.

    Attributes:
        lighting: as `ViewParameters.lighting`: all of it in spherical harmonics, (9, 3).
        directions: unit vectors towards the lamps, camera frame (x right, y down, z forward), (K, 3).
        strengths: mean over the channels of each lamp's irradiance on a white surface that faces it, (K,).
        ambient: the same for what comes from everywhere.
    """

    lighting: Float[np.ndarray, "9 3"]
    directions: Float[np.ndarray, "K 3"]
    strengths: Float[np.ndarray, " K"]
    ambient: float


def sphere(count: int) -> Float[np.ndarray, "D 3"]:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)


_PROBES = np.asarray(sh_basis(sphere(400)), np.float64)


def _tint(rng: np.random.Generator, spread: float) -> np.ndarray:
    """A colour of light of mean one: warmer or cooler, a little greener or pinker."""
    warm, green = rng.normal(0, spread), rng.normal(0, spread / 4)
    tint = np.exp([warm, green, -warm])
    return tint / tint.mean()


def random_light(rng: np.random.Generator, grey: bool = False) -> Light:
    """Ambient light from above and around, and none to three lamps of any size, mostly in front and above.

    A lamp of irradiance one has the harmonics of a cosine lobe; a larger lamp (a window, the sky) has less of
    the higher orders. What the second order leaves negative is lifted by ambient light. Mean irradiance is
    about one, as cameras expose.
    """
    count = int(rng.choice([0, 1, 2, 3], p=[0.08, 0.47, 0.35, 0.10]))
    directions, strengths = np.zeros((count, 3)), np.zeros(count)
    orders = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)
    ambient = rng.uniform(0.1, 0.65)
    lighting = np.zeros((9, 3))
    lighting[0] = ambient * _tint(rng, 0.08)
    # The upper half of a room or of the open air is brighter than the floor (y is down).
    lighting[1] = -rng.uniform(0.0, 0.3) * lighting[0]
    for k in range(count):
        while True:
            azimuth, height = rng.normal(0, 60 if k == 0 else 95), rng.normal(25, 28)
            if -35 < height < 85 and abs(azimuth) < 170:
                break
        azimuth, height = np.radians([azimuth, height])
        directions[k] = [np.cos(height) * np.sin(azimuth), -np.sin(height), -np.cos(height) * np.cos(azimuth)]
        strengths[k] = rng.uniform(0.3, 1.7) * (1.0 if k == 0 else 0.55)
        softness = rng.uniform(0.0, 0.9)
        spread = np.array([1.0] + [1 - 0.35 * softness] * 3 + [1 - 0.7 * softness] * 5)
        # A surface facing n reflects E max(0, n . d) = E sum b(d) b(n) / (4 a), with b the functions of
        # `sh_basis` and a the attenuation that they carry.
        lobe = np.asarray(sh_basis(directions[k]), np.float64) / orders * spread / 4.0
        lighting += strengths[k] * lobe[:, None] * _tint(rng, 0.14)
    return _expose(lighting, directions, strengths, ambient, grey, rng)


def _expose(lighting, directions, strengths, ambient, grey, rng) -> Light:
    if grey:
        lighting = np.repeat(lighting.mean(1, keepdims=True), 3, axis=1)
    least = (_PROBES @ lighting).min(0)
    lift = np.maximum(0.0, _DARKEST * lighting[0] - least)
    lighting[0] += lift
    front = _PROBES[sphere(400)[:, 2] < -0.3] @ lighting
    gain = np.exp(0.18 * rng.standard_normal()) / (0.5 * front.mean() + 0.5 * lighting[0].mean())
    return Light(
        (lighting * gain).astype(np.float32),
        directions.astype(np.float32),
        (strengths * gain).astype(np.float32),
        float((ambient + lift.mean()) * gain),
    )
