"""A random person: coefficients, skin, hair and beard, and how the hair is worn on a day."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from facefit.synthesis import textures
from facefit.synthesis.rendering import Head

_HAIR = [  # linear RGB of black, dark brown, brown, fair, red, grey and white hair, and how often
    ((0.010, 0.008, 0.007), 0.26), ((0.030, 0.018, 0.012), 0.24), ((0.075, 0.042, 0.025), 0.16),
    ((0.300, 0.190, 0.090), 0.12), ((0.160, 0.055, 0.020), 0.05), ((0.160, 0.155, 0.150), 0.10),
    ((0.450, 0.440, 0.430), 0.07),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Person:
    """What all photographs of a person share.

    Attributes:
        identity, albedo: coefficients. hair_color: linear RGB.
        skin, brows: charts, see `textures`. beard, stubble, bald: how much, in [0, 1].
        wears_glasses: on most photographs. thickness: of the hair, millimetres.
    """

    identity: Float[np.ndarray, " I"]
    albedo: Float[np.ndarray, " A"]
    hair_color: Float[np.ndarray, "3"]
    skin: Float[np.ndarray, "R C 3"]
    brows: Float[np.ndarray, "R C"]
    beard: float
    stubble: float
    bald: float
    wears_glasses: bool
    thickness: float


@functools.lru_cache(maxsize=4)
def random_person(head: Head, key: tuple[int, ...]) -> Person:
    """A pure function of the key; the few last persons are kept, as several photographs of each are made."""
    rng = np.random.default_rng(key)
    model = head.model
    identity = rng.standard_normal(model.identity_basis.shape[0]).astype(np.float32)
    tones = head.pigments.nearest(np.clip(rng.standard_normal(model.albedo_basis.shape[0]), -2.0, 2.0))
    colors, shares = zip(*_HAIR, strict=True)
    color = np.array(colors[rng.choice(len(colors), p=np.array(shares) / sum(shares))])
    marks = np.asarray(head.marks.mean)
    kind = rng.random()
    return Person(
        identity=identity,
        albedo=tones,
        hair_color=color * np.exp(0.25 * rng.standard_normal()),
        skin=textures.skin_chart(rng, marks),
        brows=textures.brow_chart(rng, marks),
        beard=rng.uniform(0.4, 0.95) if kind < 0.14 else 0.0,
        stubble=rng.uniform(0.1, 0.6) if 0.14 <= kind < 0.34 else 0.0,
        bald=rng.uniform(0.3, 1.0) if rng.random() < 0.13 else 0.0,
        wears_glasses=bool(rng.random() < 0.18),
        thickness=rng.uniform(4, 32),
    )


def hair_style(rng: np.random.Generator, head: Head, who: Person) -> dict[str, np.ndarray]:
    """The style of a day: how far hair reaches over the head (millimetres) and how thick it is."""
    x, y, z = np.asarray(head.model.mean).T
    field = head.hair_reach + rng.normal(2, 5)
    style = rng.random()
    if rng.random() < 0.3:  # a fringe, or hair combed over one side of the forehead
        middle, side = rng.uniform(-40, 40), rng.choice([-1, 0, 1])
        shape = 1 / (1 + np.exp(-side * (x - middle) / 12)) if side else 1.0
        field = field + shape * rng.uniform(10, 42) * np.clip((y - 30) / 20, 0, 1) * np.clip(
            (z - 20) / 30, 0, 1
        )
    sides = np.clip((np.abs(x) - rng.uniform(38, 62)) / 14, 0, 1)
    back = np.clip((rng.uniform(-10, 45) - z) / 25, 0, 1)
    if style < 0.35:  # over the ears
        field = field + rng.uniform(15, 55) * np.maximum(sides, back) * np.clip((y + 60) / 30, 0, 1)
    elif style < 0.62:  # long
        field = field + 220 * np.maximum(sides * np.clip((60 - z) / 30, 0, 1), back)
    field = field - 90 * who.bald
    thickness = who.thickness * (0.4 + 0.6 * np.clip(field / 18, 0, 1)) * np.clip((field + 12) / 14, 0.05, 1)
    wave = sum(np.sin((x * a + y * b + z * c) / 22 + d) for a, b, c, d in rng.normal(0, 1, (3, 4)))
    thickness = (
        thickness * (1 + 0.12 * wave) + (8 if style < 0.62 else 0) * np.clip((20 - y) / 40, 0, 1.5) * sides
    )
    return {"field": field.astype(np.float32), "thickness": np.maximum(thickness, 0.5).astype(np.float32)}
