"""The record that rasterization makes and the other operations read."""

from __future__ import annotations

from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Fragments:
    """The nearest K triangles of every pixel, nearest first.

    face_index: row of `faces`, -1 where nothing is there. An integer: it has no gradient.
    barycentric: perspective-correct weights of the three corners at the pixel's centre; sum 1; zero where
    nothing. depth: z_ndc in [-1, 1], smaller is nearer; 1 (the far plane) where nothing. signed_distance:
    pixels from the pixel's centre to the nearest edge of its triangle, positive inside; zero where
        nothing.
    """

    face_index: Int[Array, "*batch H W K"]
    barycentric: Float[Array, "*batch H W K 3"]
    depth: Float[Array, "*batch H W K"]
    signed_distance: Float[Array, "*batch H W K"]
