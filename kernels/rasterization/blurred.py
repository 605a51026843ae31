"""Triangles that reach a little beyond their edges, in plain JAX: the arithmetic of csrc/blur.h."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_LOWEST = float(jnp.finfo(jnp.float32).min)
# The corners that edge k, opposite to corner k, goes from and to.
EDGES = ((1, 2), (2, 0), (0, 1))


def rounded(product: Float[Array, ...]) -> Float[Array, ...]:
    """`product`, rounded to float32 before it is used: compilers may not fuse it into a multiply-add.

    Coverage and depth must come out bit for bit as in the native kernels. XLA contracts a * b + c where it
    can; it cannot look through a maximum with the lowest float, which changes no finite value.
    """
    return jnp.maximum(product, _LOWEST)


def weighted_depth(weights: list, corners: Float[Array, "... 3 4"], total: Array) -> Array:
    """Depth of a point of the triangles whose corners are in the screen's homogeneous coordinates."""
    terms = [rounded(weights[k] * corners[..., k, 2]) for k in range(3)]
    return ((terms[0] + terms[1]) + terms[2]) / total


def reached(
    corners: Float[Array, "... 3 4"], relative_x: list, relative_y: list, edge: list, blur: float
) -> tuple[Array, Array]:
    """Whether each centre is nearer than `blur` to its triangle, outside it, and the depth of the clipped
    weights.
    """
    blur_squared = np.float32(blur) * np.float32(blur)
    x, y = corners[..., 0], corners[..., 1]
    area = rounded((x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0])) - rounded(
        (y[..., 1] - y[..., 0]) * (x[..., 2] - x[..., 0])
    )
    counts = jnp.all(corners[..., 3] == 1, axis=-1) & (area != 0)
    near, inside = False, []
    for k, (a, b) in enumerate(EDGES):
        along_x, along_y = x[..., b] - x[..., a], y[..., b] - y[..., a]
        squared = rounded(along_x * along_x) + rounded(along_y * along_y)
        oriented = jnp.where(area > 0, edge[k], -edge[k])
        counts = counts & ~((oriented < 0) & (rounded(edge[k] * edge[k]) > rounded(squared * blur_squared)))
        inside.append(jnp.maximum(oriented, 0.0))
        inverse = 1.0 / jnp.maximum(squared, np.float32(1e-30))
        place = -(rounded(relative_x[a] * along_x) + rounded(relative_y[a] * along_y))
        place = jnp.clip(rounded(place * inverse), 0.0, 1.0)
        off_x = relative_x[a] + rounded(place * along_x)
        off_y = relative_y[a] + rounded(place * along_y)
        # The nearest point of a triangle is on an edge that the centre is on the outer side of.
        near = near | ((oriented <= 0) & (rounded(off_x * off_x) + rounded(off_y * off_y) < blur_squared))
    total = (inside[0] + inside[1]) + inside[2]
    depth = weighted_depth(inside, corners, total)
    return counts & near & (total > 0) & (depth >= -1) & (depth <= 1), depth


def fragment_values(
    relative_x: list, relative_y: list, corners: Float[Array, "... 3 4"], hit: Bool[Array, ...]
) -> tuple[Array, Array, Array]:
    """Barycentric coordinates, z_ndc and signed distance at each fragment's centre.

    relative_x, relative_y: of the corners about the centre, in homogeneous pixels. corners: in clip
    coordinates. hit: where there is a fragment.
    """
    w = [corners[..., k, 3] for k in range(3)]
    edge = [relative_x[a] * relative_y[b] - relative_y[a] * relative_x[b] for a, b in EDGES]
    area = sum(edge[k] * w[k] for k in range(3))
    front = (w[0] > 0) & (w[1] > 0) & (w[2] > 0) & (area != 0)
    kept = [jnp.where(area > 0, e >= 0, e <= 0) for e in edge]
    outside = hit & front & ~(kept[0] & kept[1] & kept[2])
    weights = jnp.stack([jnp.where(~outside | kept[k], edge[k], 0.0) for k in range(3)], axis=-1)
    total = jnp.sum(weights, axis=-1)
    # The inner `where` keeps infinities out of the derivative of what is not used.
    barycentric = jnp.where(
        hit[..., None], weights / jnp.where(hit & (total != 0), total, 1.0)[..., None], 0.0
    )
    z = jnp.sum(barycentric * corners[..., 2], axis=-1)
    depth_w = jnp.sum(barycentric * corners[..., 3], axis=-1)
    depth = jnp.where(hit, z / jnp.where(hit & (depth_w != 0), depth_w, 1.0), 1.0)
    inside_distance = line_distance(relative_x, relative_y, w, hit & ~outside)
    x = [relative_x[k] / jnp.where(outside, w[k], 1.0) for k in range(3)]
    y = [relative_y[k] / jnp.where(outside, w[k], 1.0) for k in range(3)]
    squared = jnp.full(hit.shape, jnp.inf)
    for a, b in EDGES:
        along_x, along_y = x[b] - x[a], y[b] - y[a]
        length = jnp.maximum(along_x**2 + along_y**2, 1e-30)
        place = jnp.clip(-(x[a] * along_x + y[a] * along_y) / length, 0.0, 1.0)
        # The nearest point moves with its edge; its place on the edge is the best one and so changes nothing.
        place = jax.lax.stop_gradient(place)
        squared = jnp.minimum(
            squared, ((1 - place) * x[a] + place * x[b]) ** 2 + ((1 - place) * y[a] + place * y[b]) ** 2
        )
    away = outside & (squared > 0)
    outside_distance = jnp.where(away, jnp.sqrt(jnp.where(away, squared, 1.0)), 0.0)
    return barycentric, depth, jnp.where(outside, -outside_distance, inside_distance)


def line_distance(relative_x: list, relative_y: list, w: list, inside: Bool[Array, ...]) -> Array:
    """Pixels from a centre inside a triangle to the nearest line through an edge; zero elsewhere."""
    distances = []
    for a, b in EDGES:
        edge = relative_x[a] * relative_y[b] - relative_y[a] * relative_x[b]
        normal_x = relative_y[a] * w[b] - w[a] * relative_y[b]
        normal_y = w[a] * relative_x[b] - relative_x[a] * w[b]
        squared = normal_x**2 + normal_y**2
        distances.append(jnp.abs(edge) / jnp.sqrt(jnp.where(inside & (squared > 0), squared, 1.0)))
    return jnp.where(inside, jnp.minimum(jnp.minimum(distances[0], distances[1]), distances[2]), 0.0)
