"""Rasterization in plain JAX: the meaning of the operation, on any device, with bounded memory.

Visibility and its derivative are apart: `visible_faces` is all comparisons and has no gradient; `surface`
gives barycentric coordinates and depth for known faces and is ordinary differentiable arithmetic.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.fragments import Fragments
from facefit_kernels.rasterization.blurred import (
    EDGES,
    fragment_values,
    line_distance,
    reached,
    rounded,
    weighted_depth,
)
from jaxtyping import Array, Bool, Float, Int

_NO_FACE = 2**31 - 1
# Triangles are handled in classes by the side of the square window that holds their pixels; each class in
# chunks of about this many pixels, so that memory is bounded whatever the number of triangles.
_WINDOWS = (2, 4, 8, 16, 64)
_CHUNK_PIXELS = 16384


def screen_vertices(vertices_clip: Float[Array, "V 4"], size: tuple[int, int]) -> Float[Array, "V 4"]:
    """Vertices scaled by a positive number each, so that (x / w, y / w) are pixels and w is 1 in front of the
    camera.

    A vertex beside or behind the camera keeps its w (zero or negative) and is scaled to about 1. Scaling a
    vertex changes no sign of an edge function, so a triangle that crosses the camera's plane needs no
    clipping (Olano and Greer 1997, "Triangle scan conversion using 2D homogeneous coordinates").
    """
    height, width = size
    x, y, z, w = jnp.moveaxis(vertices_clip, -1, 0)
    pixel_x, pixel_y = (x + w) * (0.5 * width), (y + w) * (0.5 * height)
    largest = jnp.maximum(jnp.maximum(jnp.abs(x), jnp.abs(y)), jnp.maximum(jnp.abs(z), jnp.abs(w)))
    front = w > 1e-5 * largest
    divisor = jnp.where(front, w, jnp.maximum(largest, 1e-30))
    return jnp.stack(
        [pixel_x / divisor, pixel_y / divisor, z / divisor, jnp.where(front, 1.0, w / divisor)], axis=-1
    )


def edge_tie(a: Float[Array, "... 4"], b: Float[Array, "... 4"]) -> Float[Array, ...]:
    """What stands for the sign of an edge function that is exactly zero at a centre.

    The centre counts as one a little to the right, and on a horizontal edge a little below.
    """
    slope_x = rounded(a[..., 1] * b[..., 3]) - rounded(a[..., 3] * b[..., 1])
    slope_y = rounded(a[..., 3] * b[..., 0]) - rounded(a[..., 0] * b[..., 3])
    return jnp.where(slope_x != 0, slope_x, slope_y)


def cross(ax: Array, ay: Array, bx: Array, by: Array) -> Array:
    """Of vectors in the plane, with each product rounded."""
    return rounded(ax * by) - rounded(ay * bx)


def facing(corners: Float[Array, "... 3 4"]) -> Float[Array, ...]:
    """Twice the area of each triangle in pixels, signed by the side that is seen; zero where a corner is not
    in front of the camera.

    Args:
        corners: as `screen_vertices` gives them.
    """
    x, y = corners[..., 0], corners[..., 1]
    a, b, c = range(3)
    area = cross(x[..., b] - x[..., a], y[..., b] - y[..., a], x[..., c] - x[..., a], y[..., c] - y[..., a])
    return jnp.where(jnp.all(corners[..., 3] == 1, axis=-1), area, 0.0)


def seen_from_behind(corners: Float[Array, "... 3 4"]) -> Bool[Array, ...]:
    """Whether the corners of each triangle go round clockwise in the picture; as in csrc/triangle.h."""
    x, y, w = (corners[..., k] for k in (0, 1, 3))
    ab, bc, ca = (cross(x[..., a], y[..., a], x[..., b], y[..., b]) for a, b in ((0, 1), (1, 2), (2, 0)))
    volume = (rounded(ab * w[..., 2]) + rounded(bc * w[..., 0])) + rounded(ca * w[..., 1])
    return jnp.where(jnp.all(w == 1, axis=-1), facing(corners), volume) > 0


def _counts(
    corners: Float[Array, "... 3 4"], pixel_x: Float[Array, ...], pixel_y: Float[Array, ...], blur: float
) -> tuple[Array, Array]:
    """Whether each pixel's centre is in its triangle or nearer to it than `blur`, and the depth there; as in
    csrc/triangle.h and csrc/blur.h.
    """
    relative_x = [corners[..., k, 0] - rounded(pixel_x * corners[..., k, 3]) for k in range(3)]
    relative_y = [corners[..., k, 1] - rounded(pixel_y * corners[..., k, 3]) for k in range(3)]
    edge, inside_if_zero = [], []
    for a, b in EDGES:
        edge.append(rounded(relative_x[a] * relative_y[b]) - rounded(relative_y[a] * relative_x[b]))
        inside_if_zero.append(edge_tie(corners[..., a, :], corners[..., b, :]))
    terms_w = [rounded(edge[k] * corners[..., k, 3]) for k in range(3)]
    total = (terms_w[0] + terms_w[1]) + terms_w[2]
    depth = weighted_depth(edge, corners, total)
    positive, negative = total > 0, total < 0
    for k in range(3):
        decisive = jnp.where(edge[k] != 0, edge[k], inside_if_zero[k])
        positive = positive & (decisive > 0)
        negative = negative & (decisive < 0)
    covered = (positive | negative) & (depth >= -1) & (depth <= 1)
    if blur == 0:
        return covered, depth
    near, depth_there = reached(corners, relative_x, relative_y, edge, blur)
    return covered | near, jnp.where(covered, depth, depth_there)


def _bounds(
    corners: Float[Array, "F 3 4"], exists: Array, size: tuple[int, int], blur: float
) -> tuple[Array, Array, Array, Array]:
    """First column, first row, columns and rows of the pixels a triangle may cover or reach; zero columns
    where it has none.
    """
    height, width = size
    first, last = [], []
    in_front = jnp.all(corners[..., 3] == 1, axis=-1)
    # Rounded as in csrc/triangle.h.
    low_side, high_side = np.float32(0.5) + np.float32(blur), np.float32(blur) - np.float32(0.5)
    reach = jnp.where(in_front, np.float32(blur), 0.0)[..., None]
    for axis, count in ((0, width), (1, height)):
        low, high = jnp.min(corners[..., axis], axis=-1), jnp.max(corners[..., axis], axis=-1)
        low = jnp.where(in_front, jnp.ceil(low - low_side), 0.0)
        high = jnp.where(in_front, jnp.floor(high + high_side), float(count))
        first.append(jnp.clip(low, 0, count).astype(jnp.int32))
        last.append(jnp.clip(high, -1, count - 1).astype(jnp.int32))
    w, z = corners[..., 3], corners[..., 2]
    x, y = corners[..., 0], corners[..., 1]
    outside = (
        jnp.all(w <= 0, -1)
        | jnp.all(z < -w, -1)
        | jnp.all(z > w, -1)
        | jnp.all(x < -reach, -1)
        | jnp.all(y < -reach, -1)
        | jnp.all(x > rounded(width * w) + reach, -1)
        | jnp.all(y > rounded(height * w) + reach, -1)
    )
    drawn = exists & ~outside & jnp.all(jnp.isfinite(corners), axis=(-1, -2))
    columns = jnp.where(~drawn, 0, jnp.maximum(last[0] - first[0] + 1, 0))
    rows = jnp.maximum(last[1] - first[1] + 1, 0)
    return first[0], first[1], jnp.where(rows > 0, columns, 0), rows


# Its loops would be compiled anew at every call outside `jit`.
@functools.partial(jax.jit, static_argnames=("size", "fragments", "blur", "cull"))
def visible_faces(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    size: tuple[int, int],
    fragments: int = 1,
    blur: float = 0.0,
    cull: bool = False,
) -> Int[Array, "H W K"]:
    """The nearest `fragments` faces of every pixel, -1 where there are no more; of equal depths the lower
    index first.

    Triangles are sorted by window size and written in chunks by a scatter-minimum; how many chunks a class
    has is found at run time, so there is no capacity that could overflow. Triangles wider than the largest
    window, or that cross the camera's plane, are drawn one at a time over the whole picture. Several
    fragments are found one after the other, each behind the last (depth peeling, Everitt 2001), so that
    memory is one layer's.
    """
    height, width = size
    count = faces.shape[0]
    if count == 0 or vertices_clip.shape[0] == 0 or height == 0 or width == 0:
        return jnp.full((*size, fragments), -1, jnp.int32)
    vertices = jax.lax.stop_gradient(screen_vertices(vertices_clip, size))
    corners = vertices[faces]
    exists = jnp.all((faces >= 0) & (faces < vertices_clip.shape[0]), axis=-1)
    if cull:
        exists = exists & ~seen_from_behind(corners)
    column, row, columns, rows = _bounds(corners, exists, size, blur)
    side = jnp.maximum(columns, rows)
    classes = sum((side > window).astype(jnp.int32) for window in _WINDOWS)
    classes = jnp.where(columns > 0, classes, len(_WINDOWS) + 1)
    # Sorted as one number each: XLA's code for CPUs sorts pairs in three times the time.
    order = jnp.sort(classes * count + jnp.arange(count, dtype=jnp.int32), stable=False) % count
    # The number of triangles in all classes before each.
    starts = jnp.sum(classes[:, None] < jnp.arange(len(_WINDOWS) + 2), axis=0).astype(jnp.int32)

    def behind(layer, depth, face):
        if layer is None:
            return True
        depths, last = layer
        return (depth > depths) | ((depth == depths) & (face > last))

    def write_windows(state, layer, window: int, start, stop):
        chunk = min(max(_CHUNK_PIXELS // window**2, 1), count)
        shift = jnp.arange(window, dtype=jnp.int32)
        corner = jax.lax.GatherDimensionNumbers((1, 2), (), (0, 1))
        inside = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS

        def windows(values, place):
            return jax.lax.gather(values, place, corner, (window, window), mode=inside)

        def least(values, place, candidates):
            # A window at a time: XLA's code for CPUs goes through what is scattered one by one.
            numbers = jax.lax.ScatterDimensionNumbers((1, 2), (), (0, 1))
            return jax.lax.scatter_min(values, place, candidates, numbers, mode=inside)

        def body(carry):
            first, depths, nearest = carry
            slot = first + jnp.arange(chunk, dtype=jnp.int32)
            face = order[jnp.minimum(slot, count - 1)]
            place = jnp.stack([row[face], column[face]], axis=-1)
            x = column[face][:, None, None] + shift[None, None, :]
            y = row[face][:, None, None] + shift[None, :, None]
            covered, depth = _counts(corners[face][:, None, None], x + 0.5, y + 0.5, blur)
            face = face[:, None, None]
            covered = covered & (slot < stop)[:, None, None]
            if layer is not None:
                covered = covered & behind([windows(values, place) for values in layer], depth, face)
            depth = jnp.where(covered, depth, jnp.inf)
            nearer = least(depths, place, depth)
            nearest = jnp.where(nearer < depths, _NO_FACE, nearest)
            wins = covered & (depth == windows(nearer, place))
            nearest = least(nearest, place, jnp.where(wins, face, _NO_FACE))
            return first + chunk, nearer, nearest

        # Windows of triangles at the picture's end go beyond it.
        beyond = ((0, window), (0, window))
        state = tuple(jnp.pad(values, beyond) for values in state)
        if layer is not None:
            layer = tuple(jnp.pad(values, beyond) for values in layer)
        state = jax.lax.while_loop(lambda carry: carry[0] < stop, body, (start, *state))[1:]
        return tuple(values[:height, :width] for values in state)

    def write_whole(state, layer, start, stop):
        x = jnp.arange(width, dtype=jnp.float32)[None, :] + 0.5
        y = jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5

        def body(carry):
            slot, depths, nearest = carry
            face = order[slot]
            covered, depth = _counts(corners[face], x, y, blur)
            # Same limits as the windows: rounding may put a pixel outside them on the inner side of a tiny
            # edge.
            covered = covered & (x > column[face]) & (x < column[face] + columns[face])
            covered = covered & (y > row[face]) & (y < row[face] + rows[face])
            covered = covered & behind(layer, depth, face)
            nearer = covered & ((depth < depths) | ((depth == depths) & (face < nearest)))
            return slot + 1, jnp.where(nearer, depth, depths), jnp.where(nearer, face, nearest)

        return jax.lax.while_loop(lambda carry: carry[0] < stop, body, (start, *state))[1:]

    def nearest_layer(layer, _=None):
        state = (jnp.full(size, jnp.inf, jnp.float32), jnp.full(size, _NO_FACE, jnp.int32))
        for k, window in enumerate(_WINDOWS):
            if k > 0 and _WINDOWS[k - 1] >= max(size):
                continue  # no triangle covers more than the whole picture: nothing to compile
            state = write_windows(state, layer, window, starts[k], starts[k + 1])
        state = write_whole(state, layer, starts[len(_WINDOWS)], starts[len(_WINDOWS) + 1])
        return state, state[1]

    if fragments == 1:
        nearest = nearest_layer(None)[1][None]
    else:
        before = (jnp.full(size, -jnp.inf, jnp.float32), jnp.full(size, -1, jnp.int32))
        _, nearest = jax.lax.scan(nearest_layer, before, length=fragments)
    return jnp.moveaxis(jnp.where(nearest == _NO_FACE, -1, nearest), 0, -1)


def pixel_centers(size: tuple[int, int]) -> tuple[Float[Array, "H W"], Float[Array, "H W"]]:
    """x and y of every pixel's centre; the first is (0.5, 0.5)."""
    height, width = size
    y, x = jnp.meshgrid(
        jnp.arange(height, dtype=jnp.float32) + 0.5, jnp.arange(width, dtype=jnp.float32) + 0.5, indexing="ij"
    )
    return x, y


def _relative_corners(
    vertices_clip: Float[Array, "V 4"], faces: Int[Array, "F 3"], face_index: Int[Array, "H W ..."]
) -> tuple[list, list, Array]:
    """Corners of each pixel's triangle, in homogeneous pixels about the pixel's centre: x - px w and y - py
    w.
    """
    size = face_index.shape[:2]
    corners = vertices_clip[faces[jnp.maximum(face_index, 0)]]
    x, y = (c.reshape(*size, *(1,) * (face_index.ndim - 2)) for c in pixel_centers(size))
    half_x, half_y = 0.5 * size[1], 0.5 * size[0]
    relative_x = [half_x * corners[..., k, 0] + (half_x - x) * corners[..., k, 3] for k in range(3)]
    relative_y = [half_y * corners[..., k, 1] + (half_y - y) * corners[..., k, 3] for k in range(3)]
    return relative_x, relative_y, corners


@jax.jit
def surface(
    vertices_clip: Float[Array, "V 4"], faces: Int[Array, "F 3"], face_index: Int[Array, "H W"]
) -> tuple[Float[Array, "H W 3"], Float[Array, "H W"]]:
    """Perspective-correct barycentric coordinates and z_ndc at every pixel's centre, differentiable in the
    vertices.
    """
    if faces.shape[0] == 0 or vertices_clip.shape[0] == 0:
        return jnp.zeros((*face_index.shape, 3)), jnp.ones(face_index.shape)
    relative_x, relative_y, corners = _relative_corners(vertices_clip, faces, face_index)
    hit = face_index >= 0
    edge = jnp.stack(
        [relative_x[a] * relative_y[b] - relative_y[a] * relative_x[b] for a, b in EDGES],
        axis=-1,
    )
    total = jnp.sum(edge, axis=-1)
    # The inner `where` keeps infinities out of the derivative of pixels that show nothing.
    barycentric = jnp.where(hit[..., None], edge / jnp.where(hit & (total != 0), total, 1.0)[..., None], 0.0)
    z = jnp.sum(barycentric * corners[..., 2], axis=-1)
    w = jnp.sum(barycentric * corners[..., 3], axis=-1)
    return barycentric, jnp.where(hit, z / jnp.where(hit & (w != 0), w, 1.0), 1.0)


@jax.jit
def signed_distance(
    vertices_clip: Float[Array, "V 4"], faces: Int[Array, "F 3"], face_index: Int[Array, "H W"]
) -> Float[Array, "H W"]:
    """Pixels from each pixel's centre to the nearest of the lines through its triangle's edges, positive
    inside.

    Of a centre inside a triangle the nearest line is also the nearest edge. The lines are taken in
    homogeneous coordinates, so a triangle that crosses the camera's plane has the distances of its visible
    part.
    """
    if faces.shape[0] == 0 or vertices_clip.shape[0] == 0:
        return jnp.zeros(face_index.shape)
    relative_x, relative_y, corners = _relative_corners(vertices_clip, faces, face_index)
    return line_distance(relative_x, relative_y, [corners[..., k, 3] for k in range(3)], face_index >= 0)


@jax.jit
def fragment_surface(
    vertices_clip: Float[Array, "V 4"], faces: Int[Array, "F 3"], face_index: Int[Array, "H W K"]
) -> tuple[Float[Array, "H W K 3"], Float[Array, "H W K"], Float[Array, "H W K"]]:
    """Barycentric coordinates, z_ndc and signed distance of fragments that may lie outside their triangles,
    differentiable in the vertices.
    """
    if faces.shape[0] == 0 or vertices_clip.shape[0] == 0:
        return jnp.zeros((*face_index.shape, 3)), jnp.ones(face_index.shape), jnp.zeros(face_index.shape)
    return fragment_values(*_relative_corners(vertices_clip, faces, face_index), face_index >= 0)


def rasterize(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    size: tuple[int, int],
    fragments: int = 1,
    blur: float = 0.0,
    cull: bool = False,
) -> Fragments:
    """The nearest fragments of every pixel; see `op.rasterize`."""
    face_index = visible_faces(jax.lax.stop_gradient(vertices_clip), faces, size, fragments, blur, cull)
    if fragments == 1 and blur == 0:
        barycentric, depth = surface(vertices_clip, faces, face_index[..., 0])
        distance = signed_distance(vertices_clip, faces, face_index[..., 0])
        return Fragments(face_index, barycentric[..., None, :], depth[..., None], distance[..., None])
    return Fragments(face_index, *fragment_surface(vertices_clip, faces, face_index))
