"""Antialiasing in plain JAX: the meaning of the operation, on any device.

First, without derivative, the mesh edge at which the picture changes between each two neighbouring pixels
(silhouette.py); then a blend that is ordinary differentiable arithmetic of that edge's ends.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.antialiasing.silhouette import CONTINUOUS, crossings
from facefit_kernels.rasterization.reference import pixel_centers
from jaxtyping import Array, Float, Int


def neighbors(faces: Int[Array, "F 3"], numpy=jnp) -> Int[Array, "F 3"]:
    """The face across the edge opposite each corner; -1 at a boundary and where more than two faces meet.

    numpy: the module to compute with, jax.numpy or numpy itself.
    """
    count = 3 * faces.shape[0]
    if count == 0:
        return faces
    first, second = numpy.roll(faces, -1, axis=1).reshape(-1), numpy.roll(faces, -2, axis=1).reshape(-1)
    low, high = numpy.minimum(first, second), numpy.maximum(first, second)
    order = numpy.lexsort((high, low))
    low, high = low[order], high[order]
    same = (low[1:] == low[:-1]) & (high[1:] == high[:-1]) & (low[1:] >= 0)
    like_next = numpy.concatenate([same, numpy.zeros(1, bool)])
    like_previous = numpy.concatenate([numpy.zeros(1, bool), same])
    first_of_two = like_next & ~like_previous & ~numpy.roll(like_next, -1)
    face = (order // 3).astype(numpy.int32)
    across = numpy.where(numpy.roll(first_of_two, 1), numpy.roll(face, 1), -1)
    across = numpy.where(first_of_two, numpy.roll(face, -1), across)
    place = numpy.argsort(order)
    return across[place].reshape(faces.shape).astype(numpy.int32)


@jax.jit
def blend(
    vertices_clip: Float[Array, "V 4"], edges: Int[Array, "H W 2 2"], image: Float[Array, "H W C"]
) -> Float[Array, "H W C"]:
    """Mixes each two pixels that an edge crosses between, by where it crosses; differentiable in vertices and
    image.

    The pixel that the edge is in gains the difference of both surfaces' colours over the part from the middle
    between the centres to the edge. A surface's colour there is the line through its two nearest pixels: with
    the centre's colour alone, the jump at the edge and with it the gradient is off by several percent, since
    shading changes fastest where a surface turns away.
    """
    height, width = image.shape[:2]
    if 0 in (height, width, vertices_clip.shape[0]):
        return image
    x, y = pixel_centers((height, width))
    half_x, half_y = 0.5 * width, 0.5 * height
    result = image
    for down in (0, 1):
        axis = 1 - down
        ends = edges[:, :, down]
        there = (ends >= 0) & (ends < vertices_clip.shape[0])
        exists = there[..., 0] & there[..., 1]
        v = [vertices_clip[jnp.where(exists, ends[..., k], 0)] for k in (0, 1)]
        w = [u[..., 3] for u in v]
        rx = [half_x * u[..., 0] + (half_x - x) * u[..., 3] for u in v]
        ry = [half_y * u[..., 1] + (half_y - y) * u[..., 3] for u in v]
        edge = rx[0] * ry[1] - ry[0] * rx[1]
        change_x = ry[0] * w[1] - w[0] * ry[1]
        change_y = w[0] * rx[1] - rx[0] * w[1]
        size_x, size_y = jnp.abs(change_x), jnp.abs(change_y)
        across = (size_y > size_x) if down else (size_x >= size_y) & (size_x > 0)
        crossed = exists & across & (x + 1 < width if axis else y + 1 < height)
        position = -edge / jnp.where(crossed, change_y if down else change_x, 1.0)
        # Clipped without a change of the derivative, as in the native kernel.
        position = position + jax.lax.stop_gradient(jnp.clip(position, 0.0, 1.0) - position)
        place = jnp.arange((width, height)[down])
        place = place[None, :] if axis == 1 else place[:, None]
        continuous = ends[..., 0] == CONTINUOUS
        before, second = jnp.roll(image, 1, axis), jnp.roll(image, -1, axis)
        after = jnp.roll(image, -2, axis)
        continues = (place > 0) & jnp.roll(continuous, 1, axis)
        goes_on = (place + 2 < image.shape[axis]) & jnp.roll(continuous, -1, axis)
        slope_first = jnp.where(continues[..., None], image - before, 0.0)
        slope_second = jnp.where(goes_on[..., None], after - second, 0.0)
        position = jnp.where(crossed, position, 0.5)[..., None]
        middle, square = position - 0.5, 0.5 * (position**2 - 0.25)
        gain = middle * (image - second) + square * slope_first + (middle - square) * slope_second
        gain = jnp.where(crossed[..., None], gain, 0.0)
        result = result + jnp.where(position > 0.5, 0.0, gain)
        # Added in place: of a shifted picture XLA's code for CPUs finds every edge several times.
        late = jnp.where(position > 0.5, gain, 0.0)
        result = result.at[1:].add(late[:-1]) if down else result.at[:, 1:].add(late[:, :-1])
    return result


def antialias(
    image: Float[Array, "H W C"],
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    face_index: Int[Array, "H W"],
    adjacent: Int[Array, "F 3"],
) -> Float[Array, "H W C"]:
    """The image with the pixels on silhouettes blended; see `op.antialias`."""
    return blend(vertices_clip, crossings(vertices_clip, faces, adjacent, face_index), image)
