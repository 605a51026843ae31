"""Writes weights in the format of dlib's face recognition file, so that dlib itself can judge our network."""

import math

import numpy as np

from facefit.photo.dlib_weights import BLOCKS, CHIP, FEATURES, STEM


def integer(value: int) -> bytes:
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def integers(*values: int) -> bytes:
    return b"".join(map(integer, values))


def real(value: float) -> bytes:
    mantissa, exponent = math.frexp(np.float32(value))
    return integers(int(math.ldexp(mantissa, 24)), exponent - 24)


def name(text: str) -> bytes:
    return integer(len(text)) + text.encode()


def tensor(values: np.ndarray, *shape: int) -> bytes:
    return integers(2, *shape) + np.asarray(values, "<f4").tobytes()


RATES = real(1) * 3 + real(0)
END = b"110" + integers(2, 0, 0, 0, 0) * 3


def random_file(seed: int) -> tuple[bytes, list[int]]:
    """A file of random weights, scaled so that the descriptor is of order one, and where its convolutions
    start.
    """
    rng = np.random.default_rng(seed)
    parts, places = [], []

    def convolution(channels, filters, size, stride, rest=b""):
        weights = rng.normal(0, math.sqrt(1 / (channels * size * size)), (filters, channels, size, size))
        padding = size // 2 if stride == 1 else 0
        places.append(sum(map(len, parts)))
        parts.append(
            name("con_4")
            + tensor(np.append(weights, rng.normal(0, 0.1, filters)), weights.size + filters, 1, 1, 1)
            + integers(filters, size, size, stride, stride, padding, padding)
            + integers(1, filters, channels, size, size, 1, 1, filters, 1, 1)
            + RATES
            + END
            + rest
        )
        affine = np.append(rng.uniform(0.7, 1.3, filters), rng.normal(0, 0.1, filters))
        parts.append(name("affine_") + tensor(affine, 2 * filters, 1, 1, 1))
        parts.append(integers(*(1, 1, filters, 1, 1) * 2, 0) + END)

    def plain(layer, *settings):
        parts.append(name(layer) + integers(*settings) + END)

    versions = [2, 2]
    for _, halves in BLOCKS[::-1]:
        versions += [2, 2, 2, 1, 1, 2, 2, 2, 2, 2, 1] if halves else [2, 2, 2, 2, 2, 2, 2, 1]
    parts.append(integer(1) + name("loss_metric_2") + real(0.04) + real(0.6))
    parts.append(integers(*versions, 2, 2, 2, 3))
    parts.append(name("input_rgb_image_sized") + real(122.5) + real(117) + real(104.25))
    parts.append(integers(CHIP, CHIP))
    convolution(3, STEM, 7, 2, integer(1))
    plain("relu_")
    plain("max_pool_2", 3, 3, 2, 2, 0, 0)
    channels = STEM
    for filters, halves in BLOCKS:
        convolution(channels, filters, 3, 2 if halves else 1)
        plain("relu_")
        convolution(filters, filters, 3, 1)
        if halves:
            plain("avg_pool_2", 2, 2, 2, 2, 0, 0)
        plain("add_prev_")
        plain("relu_")
        channels = filters
    plain("avg_pool_2", 0, 0, 1, 1, 0, 0)
    dense = rng.normal(0, math.sqrt(1 / channels), (channels, FEATURES))
    parts.append(name("fc_2") + integers(FEATURES, channels) + tensor(dense, channels, FEATURES, 1, 1))
    parts.append(integers(1, channels, FEATURES, 1, 1, 1, 0, 0, 0, 0, 1) + RATES + END)
    return b"".join(parts), places
