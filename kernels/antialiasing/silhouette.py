"""Where the visible surface ends between two neighbouring pixels, in plain JAX: a walk over the mesh, without
derivative; as in csrc/silhouette.h.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from facefit_kernels.rasterization.reference import cross, edge_tie, facing, rounded, screen_vertices
from jaxtyping import Array, Bool, Float, Int

# Triangles that a walk from one centre to the next passes at most; the native kernel has the same limit.
LONGEST_WALK = 64
# Instead of an edge's two vertices: the surface goes on; it changes, but the edge was not found.
CONTINUOUS, UNKNOWN_EDGE = -1, -2
# Pairs of pixels that are walked between at once. The longest walk of them is everybody's: nearly all are
# short, and the others wait until they can go on together.
_CHUNK_PAIRS = 256
_SHORT_WALK = 5


def _pick(values: Array, column: Array) -> Array:
    return jnp.take_along_axis(values, column[:, None], axis=1)[:, 0]


def _walk(
    vertices: Float[Array, "V 4"],
    faces,
    facings,
    adjacent,
    longest: int,
    face: Int[Array, P],
    x,
    y,
    step_x,
    step_y,
):
    """Follows the surface from centres (x, y) that show `face` to (x + step_x, y + step_y); see
    csrc/silhouette.h.

    Returns whether it would go on beyond `longest` triangles, whether it ends on the way, the last face, the
    edge's two vertices, and the depth where it ends.
    """
    count = face.shape[0]
    relative_to = jnp.stack([x, y], axis=-1)[:, None, :]
    relative_to_end = jnp.stack([x + step_x, y + step_y], axis=-1)[:, None, :]

    def relative(corner):
        return corner[..., :2] - rounded(relative_to * corner[..., 3:])

    def body(state):
        step, active, ends, face, entered, end_a, end_b, depth = state
        corner = faces[face]
        v = vertices[corner]
        r, w = relative(v), v[..., 3]
        there = v[..., :2] - rounded(relative_to_end * v[..., 3:])
        pairs = ((1, 2), (2, 0), (0, 1))
        edge = [cross(r[:, i, 0], r[:, i, 1], r[:, j, 0], r[:, j, 1]) for i, j in pairs]
        beyond = [cross(there[:, i, 0], there[:, i, 1], there[:, j, 0], there[:, j, 1]) for i, j in pairs]
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
            rounded(cross(rp[:, 0], rp[:, 1], rq[:, 0], rq[:, 1]) * t[:, 3])
            + rounded(cross(rq[:, 0], rq[:, 1], rt[:, 0], rt[:, 1]) * p[:, 3])
        ) + rounded(cross(rt[:, 0], rt[:, 1], rp[:, 0], rp[:, 1]) * q[:, 3])
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
        jnp.zeros(count),
    )
    state = jax.lax.while_loop(lambda s: (s[0] < longest) & jnp.any(s[1]), body, state)
    _, goes_on, ends, last, _, a, b, depth = state
    return goes_on, ends, jnp.where(valid, last, -1), a, b, depth


def _wound_alike(faces: Int[Array, "F 3"], adjacent: Int[Array, "F 3"]) -> Bool[Array, "F 3"]:
    """Whether each face has a neighbour across the edge opposite each corner that is wound as it is."""
    there = (adjacent >= 0) & (adjacent < faces.shape[0])
    other = faces[jnp.where(there, adjacent, 0)]
    p, q = jnp.roll(faces, -1, axis=1)[..., None], jnp.roll(faces, -2, axis=1)[..., None]
    return there & jnp.any((other == q) & (jnp.roll(other, -1, axis=2) == p), axis=2)


def _rim(faces: Int[Array, "F 3"], alike: Bool[Array, "F 3"], side: Float[Array, " F"], count: int):
    """Whether each of `count` vertices has an edge that the surface does not go on across: one without a
    neighbour wound alike, or one of those between faces that are seen from different sides."""
    exists = jnp.all((faces >= 0) & (faces < count), axis=-1)
    ends = ~(jnp.roll(alike, -1, axis=1) & jnp.roll(alike, -2, axis=1))
    seen = jnp.stack([ends | ~(side < 0)[:, None], ends | ~(side > 0)[:, None]], axis=-1)
    corners = jnp.where(exists[:, None], faces, count)
    return jnp.all(jnp.zeros((count, 2), bool).at[corners].max(seen, mode="drop"), axis=-1)


def _edges(vertices, faces, adjacent, alike, side, longest: int, first, second, x, y, step_x, step_y):
    """The ends of the edge between each two centres that show the faces first and second, other than those
    that share an inner corner; and whether a walk of more than `longest` triangles would be needed to know.
    """
    goes_on = (rounded(side[first] * side[second]) > 0)[:, None] & alike[first]
    goes_on = jnp.any((adjacent[first] == second[:, None]) & goes_on, axis=1)
    shared = (first == second) | (goes_on & (first >= 0) & (second >= 0))

    def walk(start, x, y, step_x, step_y):
        return _walk(vertices, faces, side, adjacent, longest, start, x, y, step_x, step_y)

    further_1, ends_1, last_1, a_1, b_1, depth_1 = walk(jnp.where(shared, -1, first), x, y, step_x, step_y)
    joined = shared | ((first >= 0) & ~ends_1 & (last_1 == second))
    further_2, ends_2, last_2, a_2, b_2, depth_2 = walk(
        jnp.where(joined, -1, second), x + step_x, y + step_y, -step_x, -step_y
    )
    joined = joined | ((second >= 0) & ~ends_2 & (last_2 == first))
    take_first = ends_1 & (~ends_2 | (depth_1 <= depth_2))
    found = ~joined & (ends_1 | ends_2)
    edge = jnp.where(take_first[:, None], jnp.stack([a_1, b_1], 1), jnp.stack([a_2, b_2], 1))
    edge = jnp.where(found[:, None], edge, jnp.where(joined, CONTINUOUS, UNKNOWN_EDGE)[:, None])
    return edge, further_1 | further_2


def _apart(shown: Int[Array, "H W"], corners: Int[Array, "H W 3"], axis: int) -> Bool[Array, "H W"]:
    """Whether each pixel and the next one along the axis show different faces that share no inner corner."""
    length = shown.shape[axis]

    def pixels(values, start, stop):
        return jax.lax.slice_in_dim(values, start, stop, axis=axis)

    same = pixels(shown, 0, length - 1) == pixels(shown, 1, length)
    for i in range(3):
        own = pixels(corners[..., i], 0, length - 1)
        for j in range(3):
            same = same | ((own >= 0) & (own == pixels(corners[..., j], 1, length)))
    # The last pixels have no next one.
    return jnp.pad(~same, [(0, int(axis == 0)), (0, int(axis == 1))])


@jax.jit  # its loops would be compiled anew at every call outside `jit`
def crossings(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    adjacent: Int[Array, "F 3"],
    face_index: Int[Array, "H W"],
) -> Int[Array, "H W 2 2"]:
    """The two vertices of the mesh edge at which the picture changes, or CONTINUOUS or UNKNOWN_EDGE twice.

    Between each pixel and the next to the right ([..., 0, :]) and below ([..., 1, :]). Nearly all show faces
    with a common corner around which the surface goes on. The others are walked between, a chunk at a time,
    those with long walks again afterwards; how many chunks there are is found at run time, so there is no
    capacity that could overflow.
    """
    height, width = face_index.shape
    if 0 in (height, width, faces.shape[0], vertices_clip.shape[0]):
        return jnp.full((height, width, 2, 2), -1, jnp.int32)
    vertices = screen_vertices(jax.lax.stop_gradient(vertices_clip), face_index.shape)
    exists = jnp.all((faces >= 0) & (faces < vertices.shape[0]), axis=-1)
    side, alike = facing(vertices[faces]), _wound_alike(faces, adjacent)
    inner = jnp.where(_rim(faces, alike, side, vertices.shape[0])[faces], -1, faces)
    shown = jnp.where((face_index >= 0) & exists[jnp.maximum(face_index, 0)], face_index, -1)
    corners = jnp.where(shown[..., None] >= 0, inner[jnp.maximum(shown, 0)], -1)
    apart = jnp.stack([_apart(shown, corners, 1), _apart(shown, corners, 0)], axis=-1).reshape(-1)
    until = jnp.cumsum(apart, dtype=jnp.int32)  # pairs to walk between, up to each
    shown = shown.reshape(-1)
    chunk = min(_CHUNK_PAIRS, apart.size)

    def walked(longest, pair, there):
        pixel, down = jnp.where(there, pair // 2, 0), pair % 2
        first = jnp.where(there, shown[pixel], -1)
        second = jnp.where(there, shown[pixel + jnp.where(down == 1, width, 1)], -1)
        x, y = (pixel % width) + 0.5, (pixel // width) + 0.5
        step_y = down.astype(jnp.float32)
        return _edges(
            vertices, faces, adjacent, alike, side, longest, first, second, x, y, 1 - step_y, step_y
        )

    number = jnp.arange(chunk, dtype=jnp.int32)

    def short_walks(carry):
        start, edges, waiting, count = carry
        # The place of the n-th pair is found by bisection: without a sort, and without a scatter of all.
        pair = jnp.searchsorted(until, start + 1 + number).astype(jnp.int32)
        there = pair < apart.size
        found, further = walked(_SHORT_WALK, pair, there)
        further = further & there
        edges = edges.at[jnp.where(further, apart.size, pair)].set(found, mode="drop")
        rank = jnp.cumsum(further, dtype=jnp.int32)
        waiting = waiting.at[jnp.where(further, count + rank - 1, apart.size)].set(pair, mode="drop")
        return start + chunk, edges, waiting, count + rank[-1]

    def long_walks(carry):
        start, edges, waiting, count = carry
        there = start + number < count
        pair = waiting[jnp.minimum(start + number, apart.size - 1)]
        found, _ = walked(LONGEST_WALK, pair, there)
        edges = edges.at[jnp.where(there, pair, apart.size)].set(found, mode="drop")
        return start + chunk, edges, waiting, count

    nowhere = jnp.full((apart.size, 2), CONTINUOUS, jnp.int32)
    carry = (jnp.int32(0), nowhere, jnp.zeros(apart.size, jnp.int32), jnp.int32(0))
    carry = jax.lax.while_loop(lambda carry: carry[0] < until[-1], short_walks, carry)
    carry = jax.lax.while_loop(lambda carry: carry[0] < carry[3], long_walks, (jnp.int32(0), *carry[1:]))
    return carry[1].reshape(height, width, 2, 2)
