"""What is thought of a face before it is fitted, by whoever looked at the photographs."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A guess at one person's face, from which a fit can start instead of from the mean face.

    Pose and focal length are not part of it: fitting takes them from the landmarks, whose pixels it knows.

    Attributes:
        identity, albedo: coefficients, (I,), (A,).
        expressions: of each photograph, (N, E).
        lighting: of each photograph, spherical harmonics, linear RGB, camera frame, (N, 9, 3).
        source: what made it, for the report.
    """

    identity: Float[np.ndarray, " I"]
    albedo: Float[np.ndarray, " A"]
    expressions: Float[np.ndarray, "N E"]
    lighting: Float[np.ndarray, "N 9 3"]
    source: str
