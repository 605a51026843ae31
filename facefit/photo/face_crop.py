"""Where the encoder looks: the square around a face's 68 points, and the camera that belongs to it.

One rule for training data, synthetic faces and prediction, so that a network meets what it has learned from.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from facefit.photo.cropping import square_to_photo

# Deng et al. 2019 draw their 224 px crops with a focal length of 1015 px: a field of view of 12.6 degrees. It
# is a convention of the crop, not a property of the camera that took the photograph.
CROP_FOCAL = 1015.0 / 224.0  # focal length over the side of the network's crop
# Longer side of the box around the 68 points over the side of the network's crop: a face a metre from that
# camera is as large.
FACE_SHARE = 0.64
# Side of the network's crop over the side of the crop that a data set stores: room to shift, turn and scale.
NETWORK_SHARE = 0.75


def face_square(landmarks: Float[np.ndarray, "68 2"]) -> tuple[Float[np.ndarray, "2"], float]:
    """Centre and side of the network's square around a face, upright, in the pixels of `landmarks`.

    The longer side of the points' box hardly changes when a head turns (149 px of Deng's 224 from the front,
    137 from the side), and needs no model.
    """
    low, high = landmarks.min(0), landmarks.max(0)
    return (low + high) / 2, float((high - low).max() / FACE_SHARE)


def network_crop(landmarks: Float[np.ndarray, "68 2"], size: int) -> Float[np.ndarray, "3 3"]:
    """The matrix of the network's crop of `size` pixels: photo_xy1 = M @ crop_xy1."""
    center, side = face_square(landmarks)
    return square_to_photo(center, side, size)


def stored_crop(landmarks: Float[np.ndarray, "68 2"], size: int) -> Float[np.ndarray, "3 3"]:
    """The matrix of a data set's crop of `size` pixels, the network's with a margin around it."""
    center, side = face_square(landmarks)
    return square_to_photo(center, side / NETWORK_SHARE, size)
