"""The records of a photograph: the picture as read, the faces found in it, and the chosen face with its
landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class FaceFound:
    """One face found in a photograph, before it is chosen.

    Attributes:
        landmarks: Face Mesh points in photo pixels, first pixel's centre at (.5, .5); z in pixels, smaller is
            nearer, (468, 3).
        scatter: how far each point scatters between six looks at the face, standard deviation in pixels,
            (468,).
        score: the Face Mesh network's own probability that this is a face, in [0, 1].
        detector: what proposed it, for `facefit doctor` and for debugging.
    """

    landmarks: Float[np.ndarray, "468 3"]
    scatter: Float[np.ndarray, " 468"]
    score: float
    detector: str

    @property
    def box(self) -> Box:
        """The smallest upright box around the points, (x0, y0, x1, y1)."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def size(self) -> float:
        """The longer side of the box, pixels."""
        x0, y0, x1, y1 = self.box
        return max(x1 - x0, y1 - y0)


@dataclass(frozen=True)
class Photograph:
    """A photograph with the face to be fitted.

    Attributes:
        path: the file it was read from.
        pixels: sRGB, upright (the EXIF orientation is applied), (H, W, 3) uint8.
        exif_focal_px: focal length in pixels from the EXIF data; None where there is none or it is not
            believable.
        box: (x0, y0, x1, y1) around the chosen face, pixels.
        landmarks468: Face Mesh points, pixels, first pixel's centre at (.5, .5); z in pixels, smaller is
            nearer. None where the user gave 68 points and the network sees no face there.
        landmarks68: iBUG points, same convention; None where neither the user nor dlib gave any.
        landmarks68_source: "user", "dlib" or None.
        face_score: the network's probability that there is a face, in [0, 1].
        warnings: what a user should know (other faces, doubtful points), a sentence each.
        scatter468: how far the network's points scatter between six looks at the face (standard deviation,
            pixels); None where they are the user's.
    """

    path: str
    pixels: UInt8[np.ndarray, "H W 3"]
    exif_focal_px: float | None
    box: Box
    landmarks468: Float[np.ndarray, "468 3"] | None
    landmarks68: Float[np.ndarray, "68 2"] | None
    landmarks68_source: str | None
    face_score: float
    warnings: tuple[str, ...] = ()
    scatter468: Float[np.ndarray, " 468"] | None = None
