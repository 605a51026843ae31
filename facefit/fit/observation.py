"""What a fit sees of one photograph: a crop of fixed size, landmarks and weights in its frame, and priors of
its camera.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from facefit.color import is_grey, linear_to_srgb
from facefit.fit.settings import Settings
from facefit.photo import Photograph, crop, skin_weight

# The crop's side in outer-eye distances (about 90 mm): a head with some margin.
CROP_UNITS = 2.9
# Face Mesh points of the outer corners of the eyes, and a few that span the face for when they cannot be told
# apart.
_RIGHT_EYE, _LEFT_EYE = 33, 263


@struct.dataclass
class Observation:
    """One photograph, ready for the solver. Pixels are crop pixels, the first one's centre at (0.5, 0.5).

    Attributes:
        image: linear RGB, (S, S, 3).
        grey: whether the photograph has no colours, ().
        weight: skin and validity, in [0, 1], (S, S).
        photo_px: photograph pixels per crop pixel, ().
        principal: the photograph's principal point, (2,).
        unit: distance of the outer eye corners in space, crop pixels, ().
        points468, weight468: dense landmarks with depth, (468, 3), and 1 where there are any, ().
        points68, weight68: iBUG landmarks, (68, 2), and 1 where there are any, ().
        log_focal, log_focal_sigma: prior of the focal length in photograph pixels, ().
        share: how much of its evidence counts beside the subject's other photographs, ().
        focal_group: which focal length of the subject this photograph was taken with, ().
    """

    image: Float[Array, "S S 3"]
    grey: Bool[Array, ""]
    weight: Float[Array, "S S"]
    photo_px: Float[Array, ""]
    principal: Float[Array, "2"]
    unit: Float[Array, ""]
    points468: Float[Array, "468 3"]
    weight468: Float[Array, ""]
    points68: Float[Array, "68 2"]
    weight68: Float[Array, ""]
    log_focal: Float[Array, ""]
    log_focal_sigma: Float[Array, ""]
    share: Float[Array, ""]
    focal_group: Int[Array, ""]


def face_extent(photograph: Photograph) -> tuple[np.ndarray, float]:
    """Centre of the face and its outer-eye distance in space, photograph pixels.

    The distance is measured in three dimensions where the dense landmarks give depth, so that a profile is as
    large as a frontal face.
    """
    if photograph.landmarks468 is not None:
        points = np.asarray(photograph.landmarks468, np.float64)
        centre = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
        eyes = np.linalg.norm(points[_RIGHT_EYE] - points[_LEFT_EYE])
        # Top of the forehead to the chin is 1.95 outer-eye distances: a second measure against a bad corner.
        height = np.linalg.norm(points[10] - points[152]) / 1.95
        return centre, float(max(0.5 * (eyes + height), 1.0))
    points = np.asarray(photograph.landmarks68, np.float64)
    centre = (points.min(0) + points.max(0)) / 2
    eyes = np.linalg.norm(points[36] - points[45])
    height = np.linalg.norm(points[27] - points[8]) / 1.3
    return centre, float(max(eyes, height, 1.0))


def observe(
    photograph: Photograph, settings: Settings, focal_px: float | None, focal_group: int
) -> Observation:
    """Cuts the face out of a photograph and gathers what the solver needs, on the host.

    Args:
        focal_px: the caller's focal length, photograph pixels, or None.
        focal_group: photographs with the same number share a focal length.
    """
    centre, unit_px = face_extent(photograph)
    image, matrix, validity = crop(photograph.pixels, centre, CROP_UNITS * unit_px, settings.crop_px)
    scale = float(matrix[0, 0])
    offset = np.asarray(matrix[:2, 2])
    height, width = photograph.pixels.shape[:2]

    def to_crop(points):
        moved = np.array(points, np.float32)
        moved[:, :2] = (moved[:, :2] - offset) / scale
        moved[:, 2:] = moved[:, 2:] / scale
        return moved

    dense, sparse = photograph.landmarks468, photograph.landmarks68
    if focal_px is not None:
        focal, sigma = focal_px, 0.01
    elif photograph.exif_focal_px is not None:
        focal, sigma = photograph.exif_focal_px, settings.exif_log_sigma
    else:
        focal, sigma = 1.2 * max(height, width), settings.focal_log_sigma
    srgb = np.asarray(linear_to_srgb(image))
    skin = skin_weight(srgb, None if dense is None else to_crop(dense)[:, :2])
    return Observation(
        image=np.asarray(image, np.float32),
        grey=np.asarray(is_grey(srgb)),
        weight=np.asarray(validity * skin, np.float32),
        photo_px=np.float32(scale),
        principal=np.asarray((np.array([width / 2, height / 2]) - offset) / scale, np.float32),
        unit=np.float32(unit_px / scale),
        points468=to_crop(dense) if dense is not None else np.zeros((468, 3), np.float32),
        weight468=np.float32(dense is not None),
        points68=to_crop(sparse) if sparse is not None else np.zeros((68, 2), np.float32),
        weight68=np.float32(sparse is not None),
        log_focal=np.float32(np.log(focal)),
        log_focal_sigma=np.float32(sigma),
        share=np.float32(1.0),
        focal_group=np.int32(focal_group),
    )


def sharing(observations: Sequence[Observation]) -> tuple[Observation, ...]:
    """Observations of one subject: the evidence of N photographs counts as that of sqrt(N).

    The network errs alike on one person's photographs, and so does a model that cannot express that person's
    skin.
    """
    share = np.float32(len(observations) ** -0.5)
    return tuple(observation.replace(share=share) for observation in observations)


def focal_groups(photographs: Sequence[Photograph]) -> list[int]:
    """Numbers photographs by the camera that took them: same size and same EXIF focal length, same group.

    Two pictures of equal size without EXIF are taken to share the lens too: the prior on the distance of each
    is free, so a wrong guess costs little and a right one lets the views measure the focal length together.
    """
    keys: dict = {}
    groups = []
    for photograph in photographs:
        focal = photograph.exif_focal_px
        key = (photograph.pixels.shape[:2], None if focal is None else round(focal))
        groups.append(keys.setdefault(key, len(keys)))
    return groups
