"""What `augmentation` does to stored crops, on the device: no number of cores keeps up with a GPU."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

from facefit.color import linear_to_srgb, srgb_to_linear
from facefit.encoder.augmentation import TRAINING, Augmentation
from facefit.encoder.batch import Batch
from facefit.encoder.mirroring import MIRRORED68, mirror_truth
from facefit.photo.cropping import mirror_landmarks
from facefit.photo.face_mesh import mirror_mesh

_REACH = 8  # pixels of a blur's kernel to each side
# The luminance table of the JPEG standard (ITU T.81, annex K), for quality 50.
_QUANTA = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip


@struct.dataclass
class Stored:
    """Samples of a synthetic data set in the device's memory.

    Attributes:
        image: stored crops, sRGB. square: centre and side of the network's crop in them, pixels.
        others: as `facefit.encoder.batch.Batch` has them, in pixels of the stored crop.
    """

    image: UInt8[Array, "N S S 3"]
    square: Float[Array, "N 3"]
    landmarks: Float[Array, "N 68 2"]
    dense: Float[Array, "N 468 3"]
    surface468: Float[Array, "N 468 2"]
    identity: Float[Array, "N I"]
    expression: Float[Array, "N E"]
    albedo: Float[Array, "N A"]
    lighting: Float[Array, "N 9 3"]


def augmented_batch(
    stored: Stored,
    count: Int[Array, ""],
    key: Array,
    batch: int,
    size: int,
    amount: Augmentation = TRAINING,
    mirror: dict[str, Float[Array, "C C"]] | None = None,
) -> Batch:
    """Random samples among the first `count`, augmented.

    Args:
        mirror: of `facefit.encoder.surface.EncoderSurface`; None mirrors no picture.

    As `augmentation.augment` has it for labelled samples, but that blur has no direction, few pixels are a
    blur too, JPEG keeps all its chroma, and covers are plain ellipses.
    """
    keys = jax.random.split(key, 4)
    rows = jax.random.randint(keys[0], (batch,), 0, count)
    shift = amount.shift * jax.random.uniform(keys[1], (batch, 2), minval=-1.0)
    zoom = 1.0 + amount.scale * jax.random.uniform(keys[2], (batch,), minval=-1.0)
    angle = amount.rotation * jax.random.uniform(keys[3], (batch,), minval=-1.0)
    made = _cut(stored, rows, size, shift, zoom, angle)

    def spoil(image, key):
        one = jax.random.split(key, 4)
        image, gain = _colored(image, one[0], amount)
        image = _covered(image, one[1], amount)
        image = _blurred(image, one[2], amount)
        return _noisy(image, one[3], amount), gain

    if mirror is not None:
        chosen = jax.random.uniform(jax.random.fold_in(key, 2), (batch,)) < amount.mirror
        made = _where(chosen, _mirrored(made, mirror, size), made)
    image, gain = jax.vmap(spoil)(made.image, jax.random.split(jax.random.fold_in(key, 1), batch))
    return made.replace(image=image, lighting=made.lighting * gain[:, None])


def plain_batch(stored: Stored, rows: Int[Array, " B"], size: int) -> Batch:
    """Samples as prediction sees them."""
    zero = jnp.zeros(len(rows))
    return _cut(stored, rows, size, jnp.zeros((len(rows), 2)), 1.0 + zero, zero)


def _cut(stored: Stored, rows, size: int, shift, zoom, angle) -> Batch:
    """The network's crops, and the points in them."""

    def one(row, shift, zoom, angle):
        center, side = stored.square[row, :2], stored.square[row, 2]
        step = side / size / zoom
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        turn = step * jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])
        offset = center - turn @ (size * (0.5 + shift))
        pixels = jnp.arange(size) + 0.5
        x, y = jnp.meshgrid(pixels, pixels)
        where = jnp.stack([x, y], -1) @ turn.T + offset - 0.5
        whole = stored.image[row].astype(jnp.float32)
        image = jnp.stack(
            [
                jax.scipy.ndimage.map_coordinates(
                    whole[..., channel], [where[..., 1], where[..., 0]], order=1, mode="nearest"
                )
                for channel in range(3)
            ],
            -1,
        )
        back = jnp.linalg.inv(turn)
        dense = stored.dense[row]
        moved = jnp.concatenate([(dense[:, :2] - offset) @ back.T, dense[:, 2:] / step], -1)
        flat = (stored.landmarks[row], stored.surface468[row])
        return image / 255.0, *((points - offset) @ back.T for points in flat), moved

    image, landmarks, surface468, dense = jax.vmap(one)(rows, shift, zoom, angle)
    count = len(rows)
    return Batch(
        image=image,
        landmarks=landmarks,
        landmark_weight=jnp.ones((count, 68)),
        dense=dense,
        surface468=surface468,
        skin=jnp.zeros((count, 1, 1)),
        labelled=jnp.ones(count, bool),
        identity=stored.identity[rows],
        expression=stored.expression[rows],
        albedo=stored.albedo[rows],
        lighting=stored.lighting[rows],
        subject=jnp.zeros(count, jnp.int32),
    )


def _mirrored(batch: Batch, mirror: dict[str, Float[Array, "C C"]], size: int) -> Batch:
    """All of a batch's pictures mirrored, and what is then true."""
    truth = {name: getattr(batch, name) for name in (*mirror, "lighting")}
    return batch.replace(
        image=batch.image[:, :, ::-1],
        landmarks=mirror_landmarks(batch.landmarks, size, MIRRORED68),
        dense=mirror_mesh(batch.dense, size),
        surface468=mirror_mesh(batch.surface468, size),
        **mirror_truth(mirror, truth),
    )


def _where(chosen: Bool[Array, " B"], yes: Batch, no: Batch) -> Batch:
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no)


def _colored(image, key, amount: Augmentation):
    keys = jax.random.split(key, 3)
    gain = jnp.exp(
        amount.exposure * jax.random.normal(keys[0]) + amount.white_balance * jax.random.normal(keys[1], (3,))
    )
    gamma = jnp.exp(amount.gamma * jax.random.normal(keys[2]))
    lit = jnp.clip(srgb_to_linear(image) * gain, 1e-6, 1.0)
    return jnp.maximum(linear_to_srgb(lit), 1e-4) ** gamma, gain


def _covered(image, key, amount: Augmentation):
    keys = jax.random.split(key, 5)
    size = image.shape[0]
    places = (jnp.arange(size) + 0.5) / size
    x, y = jnp.meshgrid(places, places)
    center = jax.random.uniform(keys[0], (2,), minval=0.05, maxval=0.95)
    radii = jax.random.uniform(keys[1], (2,), minval=0.05, maxval=0.3)
    angle = jax.random.uniform(keys[2], maxval=math.pi)
    u, v = x - center[0], y - center[1]
    u, v = jnp.cos(angle) * u + jnp.sin(angle) * v, jnp.cos(angle) * v - jnp.sin(angle) * u
    inside = (u / radii[0]) ** 2 + (v / radii[1]) ** 2 < 1.0
    color = jax.random.uniform(keys[3], (3,))
    shown = inside & (jax.random.uniform(keys[4]) < amount.cover)
    return jnp.where(shown[..., None], color, image)


def _blurred(image, key, amount: Augmentation):
    keys = jax.random.split(key, 4)
    size = image.shape[0]
    sigma = amount.blur[1] * size / 128 * jax.random.uniform(keys[0])
    sigma = jnp.where(jax.random.uniform(keys[1]) < amount.blur[0], sigma, 0.0)
    share = amount.coarse[1] ** jax.random.uniform(keys[2])  # of the pixels along a side
    coarse = jnp.where(jax.random.uniform(keys[3]) < amount.coarse[0], 0.45 / share, 0.0)
    sigma = jnp.maximum(jnp.hypot(sigma, coarse), 0.05)
    kernel = jnp.exp(-0.5 * (jnp.arange(-_REACH, _REACH + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (0, 1):
        padded = jnp.pad(image, [(_REACH, _REACH) if k == axis else (0, 0) for k in range(3)], mode="edge")
        parts = [jax.lax.slice_in_dim(padded, k, k + size, axis=axis) * kernel[k] for k in range(len(kernel))]
        image = sum(parts)
    return image


def _noisy(image, key, amount: Augmentation):
    """Noise, then JPEG's quantisation of blocks of eight by eight pixels."""
    keys = jax.random.split(key, 5)
    level = amount.noise[1] * jax.random.uniform(keys[0])
    level = jnp.where(jax.random.uniform(keys[1]) < amount.noise[0], level, 0.0)
    image = image + level * jax.random.normal(keys[2], image.shape)
    quality = amount.jpeg[1] + (95.0 - amount.jpeg[1]) * jax.random.uniform(keys[3])
    scale = jnp.where(quality < 50, 50.0 / quality, 2.0 - quality / 50.0)
    coded = _jpeg(image, jnp.maximum(scale * _QUANTA, 1.0) / 255.0)
    image = jnp.where(jax.random.uniform(keys[4]) < amount.jpeg[0], coded, image)
    return jnp.clip(image, 0.0, 1.0)


def _jpeg(image, quanta):
    size = image.shape[0] // 8
    k = np.arange(8)
    cosine = np.sqrt(2 / 8) * np.cos((2 * k[None] + 1) * k[:, None] * np.pi / 16)
    cosine[0] /= np.sqrt(2)
    weights = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
    blocks = (image @ weights.T).reshape(size, 8, size, 8, 3)
    coded = jnp.einsum("ui,vj,aibjc->aubvc", cosine, cosine, blocks)
    steps = quanta[None, :, None, :, None]
    coded = jnp.round(coded / steps) * steps
    plain = jnp.einsum("ui,vj,aubvc->aibjc", cosine, cosine, coded).reshape(image.shape)
    return plain @ np.linalg.inv(weights).T
