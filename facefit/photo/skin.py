"""How likely each pixel of a photograph is skin, from its colour: Deng et al. 2019, section 2.7, with a
colour model of our own.
"""

from __future__ import annotations

import functools
from importlib import resources

import cv2
import numpy as np
from jaxtyping import Float

# Face Mesh points around the face, the eyes (with the lids), the brows and the lips, each in order.
_OVAL = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip
_HOLES = [
    [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
    [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466],
    [46, 53, 52, 65, 55, 107, 66, 105, 63, 70],
    [276, 283, 282, 295, 285, 336, 296, 334, 293, 300],
    [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185],
]
_PRIOR = 0.5  # of skin, before the colour is seen
_OWN = 0.5  # share of the photograph's own skin colour in its mixture
_CLUTTER = 0.05  # share of a uniform density in "everything else", so that odd colours are no skin
_CUBE_VOLUME = 0.564 * 0.713 * 0.587  # of the RGB cube in YCbCr: the determinant of the map


def ycbcr(srgb: np.ndarray) -> Float[np.ndarray, "*shape 3"]:
    """ITU-R BT.601 luma and colour differences of sRGB (uint8, or float in [0, 1]), in [0, 1] with grey at
    0.5, float32.
    """
    rgb = srgb.astype(np.float32) / (255.0 if srgb.dtype == np.uint8 else 1.0)
    luma = rgb @ np.float32([0.299, 0.587, 0.114])
    return np.stack([luma, 0.5 + 0.564 * (rgb[..., 2] - luma), 0.5 + 0.713 * (rgb[..., 0] - luma)], -1)


def log_gaussians(colors: Float[np.ndarray, "N 3"], means, covariances) -> Float[np.ndarray, "N K"]:
    """Logarithm of K normal densities at N colours."""
    precisions = np.linalg.inv(covariances)
    centred = colors[:, None] - means
    distance = np.einsum("nki,kij,nkj->nk", centred, precisions, centred)
    return -0.5 * (distance + np.linalg.slogdet(covariances)[1] + 3 * np.log(2 * np.pi))


def face_mask(points: Float[np.ndarray, "468 3"], size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """1 inside the oval of a face without eyes, brows and mouth, 0 elsewhere, uint8 (H, W); points in pixels,
    centres at .5.
    """
    mask = np.zeros(size, np.uint8)
    corners = np.round(points[:, :2] - 0.5).astype(np.int32)
    cv2.fillPoly(mask, [corners[_OVAL]], 1)
    for hole in _HOLES:
        cv2.fillPoly(mask, [corners[hole]], 0)
    return mask


def skin_weight(
    srgb: np.ndarray, points: Float[np.ndarray, "468 3"] | None = None
) -> Float[np.ndarray, "H W"]:
    """The posterior in [0, 1] that each pixel of an sRGB picture (H, W, 3), uint8 or float in [0, 1], is
    skin.

    Two mixtures of Gaussians in YCbCr, one of skin and one of everything else, were fitted by
    `experiments/fit_skin_color.py`. With `points`, the Face Mesh points of a face in this picture (pixels,
    first centre at .5), the skin mixture is joined by a Gaussian of the colours found inside this face: that
    is what makes it right for coloured light, unusual white balance and grey photographs. Colour alone cannot
    tell skin from wood or hair of the same colour; the caller multiplies with what else it knows.
    """
    model = _model()
    # A table over 32 levels a channel, at the cells' middles: photographs have far more pixels than that.
    levels = (srgb if srgb.dtype == np.uint8 else np.clip(srgb * 255 + 0.5, 0, 255).astype(np.uint8)) >> 3
    colors = ycbcr(
        (np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1).reshape(-1, 3) * 8 + 4) / 255
    )
    skin = _mixture(colors, model["skin_share"], model["skin_mean"], model["skin_covariance"])
    rest = _mixture(colors, model["rest_share"], model["rest_mean"], model["rest_covariance"])
    rest = (1 - _CLUTTER) * rest + _CLUTTER / _CUBE_VOLUME
    if points is not None:
        own = _own_gaussian(srgb, points)
        if own is not None:
            skin = (1 - _OWN) * skin + _OWN * np.exp(log_gaussians(colors, own[0][None], own[1][None]))[:, 0]
    posterior = _PRIOR * skin / (_PRIOR * skin + (1 - _PRIOR) * rest)
    table = posterior.astype(np.float32).reshape(32, 32, 32)
    return table[levels[..., 0], levels[..., 1], levels[..., 2]]


def _mixture(colors: np.ndarray, share: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    return np.exp(log_gaussians(colors, mean, covariance)) @ share


def _own_gaussian(srgb: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and covariance of the colours inside a face, from the two thirds that are nearest their median
    (beards, glasses, hair and highlights are the rest); None where the face has too few pixels."""
    colors = ycbcr(srgb[face_mask(points, srgb.shape[:2]) > 0])
    if len(colors) < 50:
        return None
    middle = np.median(colors, axis=0)
    for _ in range(3):  # the middle moves into the densest part
        spread = np.median(np.abs(colors - middle), axis=0) + 0.004
        distance = (((colors - middle) / spread) ** 2).sum(1)
        kept = colors[distance <= np.quantile(distance, 0.67)]
        middle = kept.mean(0)
    # A Gaussian cut down to its inner two thirds keeps about half of its standard deviation.
    return middle, np.cov(kept.T) * 4 + np.diag([0.03, 0.008, 0.008]) ** 2


@functools.cache
def _model() -> dict[str, np.ndarray]:
    with resources.files(__package__).joinpath("skin_color.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        return {key: arrays[key].astype(np.float64) for key in arrays.files}
