"""Antialiasing in plain JAX: the meaning of the operation, on any device.

First, without derivative, the mesh edge at which the picture changes between each two neighbouring pixels;
then a blend that is ordinary differentiable arithmetic of that edge's ends.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.rasterization.reference import edge_tie, pixel_centers, rounded, screen_vertices
from jaxtyping import Array, Float, Int

# Triangles that a walk from one centre to the next passes at most; the native kernel has the same limit.
LONGEST_WALK = 64
# Instead of an edge's two vertices: the surface goes on; it changes, but the edge was not found.
CONTINUOUS, UNKNOWN_EDGE = -1, -2


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


def _cross(ax, ay, bx, by):
    return rounded(ax * by) - rounded(ay * bx)


def _pick(values: Array, column: Array) -> Array:
    return jnp.take_along_axis(values, column[:, None], axis=1)[:, 0]


def _walk(vertices: Float[Array, "V 4"], faces, facings, adjacent, face: Int[Array, P], x, y, step_x, step_y):
    """Follows the surface from centres (x, y) that show `face` to (x + step_x, y + step_y); see
    csrc/silhouette.h.

    Returns whether it ends on the way, the last face, the edge's two vertices, and position and depth where
    it ends.
    """
    count = face.shape[0]
    relative_to = jnp.stack([x, y], axis=-1)[:, None, :]
    relative_to_end = jnp.stack([x + step_x, y + step_y], axis=-1)[:, None, :]

    def relative(corner):
        return corner[..., :2] - rounded(relative_to * corner[..., 3:])

    def body(state):
        step, active, ends, face, entered, end_a, end_b, position, depth = state
        corner = faces[face]
        v = vertices[corner]
        r, w = relative(v), v[..., 3]
        there = v[..., :2] - rounded(relative_to_end * v[..., 3:])
        pairs = ((1, 2), (2, 0), (0, 1))
        edge = [_cross(r[:, i, 0], r[:, i, 1], r[:, j, 0], r[:, j, 1]) for i, j in pairs]
        beyond = [_cross(there[:, i, 0], there[:, i, 1], there[:, j, 0], there[:, j, 1]) for i, j in pairs]
        total = (rounded(edge[0] * w[:, 0]) + rounded(edge[1] * w[:, 1])) + rounded(edge[2] * w[:, 2])
        own = facings[face]
        sign = jnp.where(jnp.where(own != 0, own, total) < 0, -1.0, 1.0)
        edge, beyond = jnp.stack(edge, 1), jnp.stack(beyond, 1)
        change = beyond - edge
        tie = jnp.stack([edge_tie(v[:, i], v[:, j]) for i, j in pairs], 1)
        outside = jnp.where(beyond != 0, sign[:, None] * beyond < 0, sign[:, None] * tie < 0)
        leaves = (sign[:, None] * change < 0) & outside & (jnp.arange(3) != entered[:, None])
        at = jnp.where(leaves, -edge / jnp.where(change != 0, change, 1.0), 2.0)
        out = jnp.argmin(at, axis=1)
        at = _pick(at, out)
        arrived = ~jnp.any(leaves & (at[:, None] < 2.0), axis=1)
        a, b = _pick(corner, (out + 1) % 3), _pick(corner, (out + 2) % 3)
        following = _pick(adjacent[face], out)
        boundary = (following < 0) | (following >= faces.shape[0])
        other = faces[jnp.where(boundary, 0, following)]
        on_edge = (other == a[:, None]) | (other == b[:, None])
        opposite = jnp.where(~on_edge[:, 0], 0, jnp.where(~on_edge[:, 1], 1, 2)).astype(jnp.int32)
        third = _pick(other, opposite)
        boundary = boundary | (third < 0) | (third >= vertices.shape[0])
        p, q, t = vertices[a], vertices[b], vertices[third]
        (rp, rq, rt) = (relative(u[:, None])[:, 0] for u in (p, q, t))
        side = (
            rounded(_cross(rp[:, 0], rp[:, 1], rq[:, 0], rq[:, 1]) * t[:, 3])
            + rounded(_cross(rq[:, 0], rq[:, 1], rt[:, 0], rt[:, 1]) * p[:, 3])
        ) + rounded(_cross(rt[:, 0], rt[:, 1], rp[:, 0], rp[:, 1]) * q[:, 3])
        # Where the surface goes on, the next triangle is seen from the same side (wound the other way if
        # both run through the edge in the same direction).
        sides = rounded(own * facings[jnp.where(boundary, 0, following)])
        alike = _pick(other, (opposite + 1) % 3) == b
        turns = jnp.where(sides != 0, jnp.where(alike, ~(sides > 0), ~(sides < 0)), ~(sign * side < 0))
        stops = active & ~arrived & (boundary | turns)
        goes_on = active & ~arrived & ~stops
        here_x, here_y = x + rounded(at * step_x), y + rounded(at * step_y)
        along_p = jnp.where(
            step_y != 0, p[:, 0] - rounded(here_x * p[:, 3]), p[:, 1] - rounded(here_y * p[:, 3])
        )
        along_q = jnp.where(
            step_y != 0, q[:, 0] - rounded(here_x * q[:, 3]), q[:, 1] - rounded(here_y * q[:, 3])
        )
        w_here = rounded(along_q * p[:, 3]) - rounded(along_p * q[:, 3])
        z_here = rounded(along_q * p[:, 2]) - rounded(along_p * q[:, 2])
        z_here = jnp.where(w_here != 0, z_here / jnp.where(w_here != 0, w_here, 1.0), p[:, 2])
        return (
            step + 1,
            goes_on,
            ends | stops,
            jnp.where(goes_on, following, face),
            jnp.where(goes_on, opposite, entered),
            jnp.where(stops, a, end_a),
            jnp.where(stops, b, end_b),
            jnp.where(stops, jnp.clip(at, 0.0, 1.0), position),
            jnp.where(stops, z_here, depth),
        )

    none = jnp.full(count, -1, jnp.int32)
    valid = (face >= 0) & (face < faces.shape[0])
    state = (
        0,
        valid,
        jnp.zeros(count, bool),
        jnp.where(valid, face, 0),
        none,
        none,
        none,
        jnp.ones(count),
        jnp.zeros(count),
    )
    state = jax.lax.while_loop(lambda s: (s[0] < LONGEST_WALK) & jnp.any(s[1]), body, state)
    _, _, ends, last, _, a, b, position, depth = state
    return ends, jnp.where(valid, last, -1), a, b, position, depth


def facing(vertices: Float[Array, "V 4"], faces: Int[Array, "F 3"]) -> Float[Array, " F"]:
    """Twice the area of each triangle in pixels, signed by the side that is seen; zero where a corner is not
    in front of the camera.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = _cross(b[:, 0] - a[:, 0], b[:, 1] - a[:, 1], c[:, 0] - a[:, 0], c[:, 1] - a[:, 1])
    return jnp.where((a[:, 3] == 1) & (b[:, 3] == 1) & (c[:, 3] == 1), area, 0.0)


def _wound_alike(faces: Int[Array, "F 3"], adjacent: Int[Array, "F 3"], k: int):
    """Whether each face has a neighbour across the edge opposite corner k that is wound as it is."""
    following = adjacent[:, k]
    there = (following >= 0) & (following < faces.shape[0])
    other = faces[jnp.where(there, following, 0)]
    p, q = faces[:, (k + 1) % 3, None], faces[:, (k + 2) % 3, None]
    return there & jnp.any((other == q) & (jnp.roll(other, -1, axis=1) == p), axis=1)


def _rim(faces, alike, side, count: int):
    """Whether each of `count` vertices has an edge that the surface does not go on across: one without a
    neighbour wound alike, or one of those between faces that are seen from different sides."""
    exists = jnp.all((faces >= 0) & (faces < count), axis=-1)
    seen = []
    for here in (~(side < 0), ~(side > 0)):
        corners = jnp.where((exists & here)[:, None], faces, count)
        seen.append(jnp.zeros(count, bool).at[corners].max(True, mode="drop"))
    rim = seen[0] & seen[1]
    for k in range(3):
        ends = exists & ~alike[:, k]
        for end in ((k + 1) % 3, (k + 2) % 3):
            rim = rim.at[jnp.where(ends, faces[:, end], count)].max(True, mode="drop")
    return rim


def _discontinuities(vertices, faces, adjacent, first, second, x, y, step_x, step_y):
    side = facing(vertices, faces)
    # Faces around a vertex where the surface goes on across every edge, or across the edge they share.
    alike = jnp.stack([_wound_alike(faces, adjacent, k) for k in range(3)], axis=1)
    rim = _rim(faces, alike, side, vertices.shape[0])
    corner, other = faces[first], faces[second]
    near = jnp.zeros(first.shape, bool)
    for k in range(3):
        near = near | (jnp.any(other == corner[:, k, None], axis=1) & ~rim[corner[:, k]])
        goes_on = alike[first, k] & (rounded(side[first] * side[second]) > 0)
        near = near | ((adjacent[first, k] == second) & goes_on)
    shared = (first == second) | (near & (first >= 0) & (second >= 0))
    start_first = jnp.where(shared, -1, first)
    ends_1, last_1, a_1, b_1, _, depth_1 = _walk(
        vertices, faces, side, adjacent, start_first, x, y, step_x, step_y
    )
    joined = shared | ((first >= 0) & ~ends_1 & (last_1 == second))
    ends_2, last_2, a_2, b_2, _, depth_2 = _walk(
        vertices,
        faces,
        side,
        adjacent,
        jnp.where(joined, -1, second),
        x + step_x,
        y + step_y,
        -step_x,
        -step_y,
    )
    joined = joined | ((second >= 0) & ~ends_2 & (last_2 == first))
    take_first = ends_1 & (~ends_2 | (depth_1 <= depth_2))
    found = ~joined & (ends_1 | ends_2)
    edge = jnp.where(take_first[:, None], jnp.stack([a_1, b_1], 1), jnp.stack([a_2, b_2], 1))
    return jnp.where(found[:, None], edge, jnp.where(joined, CONTINUOUS, UNKNOWN_EDGE)[:, None])


@jax.jit  # its loops would be compiled anew at every call outside `jit`
def crossings(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    adjacent: Int[Array, "F 3"],
    face_index: Int[Array, "H W"],
) -> Int[Array, "H W 2 2"]:
    """The two vertices of the mesh edge at which the picture changes, or CONTINUOUS or UNKNOWN_EDGE twice.

    Between each pixel and the next to the right ([..., 0, :]) and below ([..., 1, :]).
    """
    height, width = face_index.shape
    if 0 in (height, width, faces.shape[0], vertices_clip.shape[0]):
        return jnp.full((height, width, 2, 2), -1, jnp.int32)
    vertices = screen_vertices(jax.lax.stop_gradient(vertices_clip), face_index.shape)
    exists = jnp.all((faces >= 0) & (faces < vertices.shape[0]), axis=-1)
    shown = jnp.where((face_index >= 0) & exists[jnp.maximum(face_index, 0)], face_index, -1)
    x, y = pixel_centers(face_index.shape)
    right = jnp.concatenate([shown[:, 1:], shown[:, -1:]], axis=1)
    below = jnp.concatenate([shown[1:], shown[-1:]], axis=0)
    # Both directions in one walk: half as much to compile.
    count = height * width
    step_x = jnp.repeat(jnp.asarray([1.0, 0.0], jnp.float32), count)
    first, second = jnp.tile(shown.reshape(-1), 2), jnp.concatenate([right.reshape(-1), below.reshape(-1)])
    at_x, at_y = jnp.tile(x.reshape(-1), 2), jnp.tile(y.reshape(-1), 2)
    edges = _discontinuities(vertices, faces, adjacent, first, second, at_x, at_y, step_x, 1.0 - step_x)
    return jnp.moveaxis(edges.reshape(2, height, width, 2), 0, 2)


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
        exists = jnp.all((ends >= 0) & (ends < vertices_clip.shape[0]), axis=-1)
        v = vertices_clip[jnp.where(exists[..., None], ends, 0)]
        w = v[..., 3]
        rx = half_x * v[..., 0] + (half_x - x)[..., None] * w
        ry = half_y * v[..., 1] + (half_y - y)[..., None] * w
        edge = rx[..., 0] * ry[..., 1] - ry[..., 0] * rx[..., 1]
        change_x = ry[..., 0] * w[..., 1] - w[..., 0] * ry[..., 1]
        change_y = w[..., 0] * rx[..., 1] - rx[..., 0] * w[..., 1]
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
        result = result + jnp.roll(jnp.where(position > 0.5, gain, 0.0), 1, axis)
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
