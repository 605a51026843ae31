"""Albedo components from photographs: expectation-maximisation of a factor model whose evidence is colours.

Every photograph's albedo is the model's mean, plus the named components that are kept, plus K components that
are learned and shared, times coefficients with prior N(0, 1); its light is its own. The expectation step
solves a photograph's coefficients and light (`color_solver`), with their covariance; the maximisation step
solves the components given all photographs, under priors: they are symmetric, smooth over the surface, near
the colours that melanin and blood can make of the mean, and small where nothing is seen. It is probabilistic
principal components (Tipping, Bishop 1999) with missing data, robust weights and light.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.open_face.color_solver import SETTINGS, Albedo, Colors, evidence, misses, solve_all
from experiments.open_face.observed_colors import Seen
from facefit.render import sh_basis, vertex_normals

_CHUNK = 32  # photographs whose equations are summed at once
_EVEN_LIGHT = np.array([0, 1, 2, 5, 6, 8])  # the harmonics of light that are alike on both sides of a face


class Priors(NamedTuple):
    """What is known of components before photographs are seen.

    Attributes:
        count: independent measurements that a photograph counts as.
        step: a component's difference between neighbours that costs one, linear RGB (per square mesh).
        size: a component's value at a vertex that costs one, linear RGB, (U,): small where it should vanish.
        plane: the same of its part that melanin and blood cannot make.
        tone: what costs one of a component's `Learned.tones`.
    """

    count: float
    step: float
    size: Float[Array, " U"]
    plane: float
    tone: float


class Fold(NamedTuple):
    """The mesh folded along its middle: U pairs of mirrored vertices.

    Attributes:
        pair: the two vertices of each, twice the same on the middle line, (U, 2).
        of: each vertex's pair, (V,).
        edges: of the mesh, (E, 2). stiffness: their cotangent weights, (E,).
        normal: unit direction of linear RGB that the pigments cannot make of the pair's mean colour, (U, 3).
    """

    pair: Int[Array, "U 2"]
    of: Int[Array, " V"]
    edges: Int[Array, "E 2"]
    stiffness: Float[Array, " E"]
    normal: Float[Array, "U 3"]


class Learned(NamedTuple):
    """State of the learning.

    Attributes:
        offset: mean of the photographed persons' albedo less the model's and the named components', and
            what each of J - 1 known things (a smile's folds) adds to it, (J, U, 3).
        known: one, and how much there is of these things, (N, J).
        components: (K, U, 3), in units of the coefficients' prior.
        colors: of the photographs: coefficients (N, F + K), named first, and lighting (N, 9, 3).
        covariance: of the coefficients given the photograph, (N, F + K, F + K).
        share: how much each photograph counts, 1 on average, (N,).
        tones: of which components have next to none, see `tone_directions`, (T, U, 3).
    """

    offset: Float[Array, "J U 3"]
    known: Float[Array, "N J"]
    components: Float[Array, "K U 3"]
    colors: Colors
    covariance: Float[Array, "N C C"]
    share: Float[Array, " N"]
    tones: Float[Array, "T U 3"]


def fold_mesh(vertices: np.ndarray, faces: np.ndarray, albedo: np.ndarray, axes: np.ndarray) -> Fold:
    """Finds mirrored vertices and edges.

    Args:
        vertices: of a symmetric mesh, mirrored at x = 0, (V, 3).
        albedo: the mean's, (V, 3). axes: of the pigments' plane, relative to the skin's colour, (2, 3).
    """
    mirror = mirrored_vertices(vertices)
    first = np.flatnonzero(np.arange(len(mirror)) <= mirror)
    of = np.empty(len(mirror), np.int32)
    of[first] = of[mirror[first]] = np.arange(len(first))
    keys, weights = [], []
    for k in range(3):
        a, b, c = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        left, right = vertices[a] - vertices[c], vertices[b] - vertices[c]
        double = np.maximum(np.linalg.norm(np.cross(left, right), axis=1), 1e-9)
        keys.append(np.sort(np.stack([a, b], 1), axis=1))
        weights.append(np.clip(0.5 * (left * right).sum(1) / double, 0.02, 5.0))
    edges, inverse = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    stiffness = np.bincount(inverse.ravel(), np.concatenate(weights), len(edges))
    plane = albedo[first, None] * axes
    normal = np.cross(plane[:, 0], plane[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return Fold(
        pair=jnp.asarray(np.stack([first, mirror[first]], 1), jnp.int32),
        of=jnp.asarray(of, jnp.int32),
        edges=jnp.asarray(edges, jnp.int32),
        stiffness=jnp.asarray(stiffness, jnp.float32),
        normal=jnp.asarray(normal, jnp.float32),
    )


def mirrored_vertices(vertices: np.ndarray, tolerance: float = 1e-3) -> Int[np.ndarray, " V"]:
    """The vertex at each one's mirror image in x = 0.

    Raises:
        ValueError: the mesh is not symmetric within `tolerance`, millimetres.
    """
    from scipy.spatial import cKDTree

    distance, mirror = cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])
    if distance.max() > tolerance or (mirror[mirror] != np.arange(len(mirror))).any():
        raise ValueError("the mesh is not symmetric")
    return mirror.astype(np.int32)


def _sum_pairs(values: Float[Array, "... V C"], fold: Fold) -> Float[Array, "... U C"]:
    left, right = values[..., fold.pair[:, 0], :], values[..., fold.pair[:, 1], :]
    return left + right * (fold.pair[:, 0] != fold.pair[:, 1])[:, None]


def expect(
    mean: Float[Array, "V 3"],
    named: Float[Array, "F V 3"],
    fold: Fold,
    learned: Learned,
    seen: Seen,
    priors: Priors,
    places: Int[Array, " S"],
    some: Int[Array, " P"],
    steps: int,
) -> Learned:
    """The photographs' coefficients and lights given the components.

    Args:
        seen: colours at the vertices, (N, V, ...).
        places: vertices to look at, spread evenly; some: where the albedo must be plausible.
    """
    offset = learned.offset[:, fold.of]
    basis = jnp.concatenate([named, learned.components[:, fold.of]])
    # Light and tone as a fit would have them, for which a photograph is few measurements; the learned
    # coefficients as `count` would: the energy of `count` measurements, divided by the ratio of the two.
    share = SETTINGS.photometric_count / priors.count
    precision = jnp.where(jnp.arange(len(basis)) < len(named), 1.0, share)
    model = Albedo(mean[places], basis[:, places], mean[some], basis[:, some], precision)
    added = offset[:, places], offset[:, some]
    part = Seen(*(values[:, places] for values in seen))
    colors, covariance = solve_all(model, added, learned.known, learned.colors, part, steps)
    return learned._replace(colors=colors, covariance=covariance * share)


def _linear(mean, basis, fold: Fold, offset, colors: Colors, known, here: Seen, count):
    """What a photograph's pixels say at the vertices: miss, derivatives by albedo and by irradiance, (V, 3)
    each, robust weight (V,), and the light's harmonics (V, 9)."""
    what = evidence(here, count)
    shown = mean + jnp.tensordot(known, offset, 1)[fold.of]
    model = Albedo(shown, basis, shown, basis, jnp.ones(len(basis)))
    return *misses(model, colors, what), what.harmonics


def _summed(one, learned: Learned, seen: Seen, empty):
    """The sum over the photographs, some at a time, of one(colors, covariance, known, share, seen)."""
    number = len(seen.weight)
    chunks = -(-number // _CHUNK)

    def cut(values):
        padded = jnp.pad(values, [(0, chunks * _CHUNK - number)] + [(0, 0)] * (values.ndim - 1))
        return padded.reshape(chunks, _CHUNK, *values.shape[1:])

    items = (learned.colors, learned.covariance, learned.known, learned.share, seen)
    add = lambda total, item: (jax.tree.map(jnp.add, total, one(*item)), None)  # noqa: E731
    return jax.lax.scan(add, empty, jax.tree.map(cut, items))[0]


@jax.jit
def _sums(mean, named, fold: Fold, learned: Learned, seen: Seen, count):
    """Normal equations of the offset and the components, summed over the photographs: (U, 3, J + K, J + K)
    and (U, 3, J + K)."""
    basis = jnp.concatenate([named, learned.components[:, fold.of]])
    pairs = basis[:, fold.pair[:, 0]]  # named and learned components are symmetric
    kept, certain = len(named), len(learned.offset)
    unknowns = certain + len(learned.components)

    def one(colors: Colors, covariance, known, share, here: Seen):
        def equations(colors, known, share, here):
            miss, slope, _, weight, _ = _linear(mean, basis, fold, learned.offset, colors, known, here, count)
            weight = share * weight[:, None]
            return _sum_pairs(weight * slope**2, fold), -_sum_pairs(weight * slope * miss, fold)

        stiff, pull = jax.vmap(equations)(colors, known, share, here)
        own = jnp.concatenate([known, colors.albedo[:, kept:]], 1)
        spread = jnp.pad(covariance[:, kept:, :], ((0, 0), (certain, 0), (0, 0)))
        moments = own[:, :, None] * own[:, None]
        moments = moments + jnp.pad(spread[:, :, kept:], ((0, 0), (0, 0), (certain, 0)))
        flat = stiff.reshape(len(stiff), -1)
        matrix = (flat.T @ moments.reshape(len(stiff), -1)).reshape(*stiff.shape[1:], unknowns, unknowns)
        # Coefficients that are uncertain together pull on each other's components.
        across = (flat.T @ spread.reshape(len(stiff), -1)).reshape(*stiff.shape[1:], unknowns, len(basis))
        right = jnp.einsum("nuc,nk->uck", pull, own) - jnp.einsum("uckl,luc->uck", across, pairs)
        return matrix, right

    size = len(fold.pair), 3, unknowns
    return _summed(one, learned, seen, (jnp.zeros((*size, unknowns)), jnp.zeros(size)))


@functools.partial(jax.jit, static_argnames="number")
def tone_directions(
    mean, named, fold: Fold, learned: Learned, seen: Seen, count: float, number: int, vertices, faces, shown
) -> Float[Array, "T U 3"]:
    """What the light and the first `number` named components, the tones of the skin, would answer to:
    directions in which a change of the mean albedo, in all photographs together, pulls at them; and what
    light makes of the mean face. Orthonormal.

    A component that has none of them leaves light and tone to what they are. Without it skin would take
    shading from the light, and another tone with it.

    Args:
        vertices, faces: of the mean face. shown: 1 for the vertices whose colours count, (V,).
    """

    def one(colors: Colors, covariance, known, share, here: Seen):
        def pulls(colors, known, share, here):
            _, slope, by_light, weight, harmonics = _linear(
                mean, named, fold, learned.offset, colors._replace(albedo=colors.albedo[: len(named)]),
                known, here, count,
            )  # fmt: skip
            weight = share * weight[:, None] * slope
            light = weight * by_light * jnp.moveaxis(harmonics[:, _EVEN_LIGHT], -1, 0)[..., None]
            return _sum_pairs(jnp.concatenate([light, weight * slope * named[:number]]), fold)

        return jax.vmap(pulls)(colors, known, share, here).sum(0)

    count_all = len(_EVEN_LIGHT) + number
    found = _summed(one, learned, seen, jnp.zeros((count_all, len(fold.pair), 3)))
    lit = jnp.einsum("juc,cd->jduc", found[: len(_EVEN_LIGHT)], jnp.eye(3))
    rows = jnp.concatenate([lit.reshape(-1, *found.shape[1:]), found[len(_EVEN_LIGHT) :]])
    normals = vertex_normals(vertices, faces) * jnp.asarray([1.0, -1.0, -1.0])
    light = sh_basis(normals)[:, _EVEN_LIGHT] * shown[:, None]
    even = jnp.einsum("vk,vj,ck->jcvk", mean, light, jnp.eye(3)).reshape(-1, *mean.shape)
    rows = jnp.concatenate([rows, even[:, fold.pair[:, 0]]]).reshape(-1, rows[0].size)
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.linalg.qr(rows.T)[0].T.reshape(-1, *found.shape[1:])


def _roughness(values: Float[Array, "U 3 K"], fold: Fold) -> Float[Array, "U 3 K"]:
    """The Laplacian of the unfolded mesh, folded again."""
    full = values[fold.of]
    across = (full[fold.edges[:, 0]] - full[fold.edges[:, 1]]) * fold.stiffness[:, None, None]
    return (
        jnp.zeros_like(values)
        .at[fold.of[fold.edges[:, 0]]]
        .add(across)
        .at[fold.of[fold.edges[:, 1]]]
        .add(-across)
    )


@functools.partial(jax.jit, static_argnames="iterations")
def _maximum(matrix, right, fold: Fold, now, tones, priors: Priors, iterations: int):
    """Moves offset or components `now` (U, 3, J or K) to the solution under the priors by conjugate
    gradients."""
    size = 1.0 / priors.size[:, None, None] ** 2

    def prior(values):
        bent = jnp.einsum("uc,uck->uk", fold.normal, values)
        out_of_plane = fold.normal[:, :, None] * bent[:, None] / priors.plane**2
        toned = jnp.einsum("tuc,uck->tk", tones, values) / priors.tone**2
        smooth = _roughness(values, fold) / priors.step**2 + values * size
        return smooth + out_of_plane + jnp.einsum("tuc,tk->uck", tones, toned)

    def operator(values):
        return jnp.einsum("uckl,ucl->uck", matrix, values) + prior(values)

    degree = jnp.zeros(len(fold.pair)).at[fold.of[fold.edges.ravel()]].add(jnp.repeat(fold.stiffness, 2))
    own = degree[:, None, None] / priors.step**2 + size
    own = own + (fold.normal**2)[:, :, None] / priors.plane**2
    blocks = jnp.linalg.inv(matrix + own[..., None] * jnp.eye(matrix.shape[-1]))
    move = jax.scipy.sparse.linalg.cg(
        operator,
        right - prior(now),
        maxiter=iterations,
        M=lambda values: jnp.einsum("uckl,ucl->uck", blocks, values),
    )[0]
    return now + move


def maximise(
    mean, named, fold: Fold, learned: Learned, seen: Seen, priors: Priors, iterations: int = 25
) -> Learned:
    """The components given the photographs' coefficients and lights; the offset, where there are none yet."""
    matrix, right = _sums(mean, named, fold, learned, seen, priors.count)
    certain = len(learned.offset)
    if not len(learned.components):
        now = jnp.moveaxis(learned.offset, 0, -1)
        found = _maximum(matrix, right, fold, now, learned.tones, priors, iterations)
        return learned._replace(offset=jnp.moveaxis(found, -1, 0))
    now = jnp.moveaxis(learned.components, 0, -1)
    matrix, right = matrix[:, :, certain:, certain:], right[:, :, certain:]
    found = _maximum(matrix, right, fold, now, learned.tones, priors, iterations)
    return whitened(learned._replace(components=jnp.moveaxis(found, -1, 0)), len(named))


def whitened(learned: Learned, kept: int) -> Learned:
    """The same albedo from components whose coefficients have mean zero and unit variance over the
    photographs, no two of them correlated, the strongest component first (the parameter expansion of Liu,
    Rubin, Wu 1998, which makes expectation-maximisation of factors converge in a few rounds).

    Args:
        kept: coefficients of named components, which stay as they are.
    """
    if not len(learned.components):
        return learned
    share = np.asarray(learned.share, np.float64) / len(learned.share)
    own = np.asarray(learned.colors.albedo[:, kept:], np.float64)
    middle = share @ own
    own = own - middle
    inside = np.tensordot(share, np.asarray(learned.covariance[:, kept:, kept:], np.float64), 1)
    values, vectors = np.linalg.eigh((own.T * share) @ own + inside)
    root = vectors * np.sqrt(np.maximum(values, 1e-8))  # moments = root root^T
    flat = np.asarray(learned.components, np.float64).reshape(len(root), -1)
    shift = (middle @ flat).reshape(learned.offset.shape[1:])
    _, turn = np.linalg.eigh((root.T @ flat) @ (root.T @ flat).T)
    mix = root @ turn[:, ::-1]  # old coefficients = mix @ new ones
    back = np.linalg.inv(mix)
    whole = np.eye(kept + len(mix))
    whole[kept:, kept:] = back
    whole = jnp.asarray(whole, jnp.float32)
    moved = learned.colors.albedo.at[:, kept:].set(jnp.asarray(own, jnp.float32))
    return learned._replace(
        offset=learned.offset.at[0].add(jnp.asarray(shift, jnp.float32)),
        components=jnp.asarray((mix.T @ flat).reshape(learned.components.shape), jnp.float32),
        colors=learned.colors._replace(albedo=moved @ whole.T),
        covariance=whole @ learned.covariance @ whole.T,
    )


def balanced(tone: Float[np.ndarray, " N"], bins: int = 6) -> Float[Array, " N"]:
    """Shares by which the tones of skin count about equally, though the photographs show one mostly.

    Args:
        tone: of each photograph's skin, any unit.
    """
    low, high = np.quantile(tone, [0.02, 0.98])
    place = np.clip(((tone - low) / max(high - low, 1e-6) * bins).astype(int), 0, bins - 1)
    frequency = np.bincount(place, minlength=bins)[place]
    share = 1.0 / (frequency + len(tone) / (2.0 * bins))  # but a handful of photographs is not the world
    return jnp.asarray(share / share.mean(), jnp.float32)


def first_components(
    mean, named, fold: Fold, learned: Learned, seen: Seen, count: float, number: int
) -> Float[Array, "K U 3"]:
    """Principal components of what the named components leave: where learning starts.

    Args:
        learned: without components, its offset and colours solved.
    """

    def left(colors: Colors, known, here: Seen):
        miss, slope, _, weight, _ = _linear(mean, named, fold, learned.offset, colors, known, here, count)
        stiff = _sum_pairs(weight[:, None] * slope**2, fold)
        # What is hardly seen stays at the mean.
        return -_sum_pairs(weight[:, None] * slope * miss, fold) / (stiff + stiff.mean())

    rows = jax.lax.map(jax.jit(lambda item: left(*item)), (learned.colors, learned.known, seen))
    flat = np.asarray(rows.reshape(len(rows), -1), np.float64)
    flat -= flat.mean(0)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    kept = np.argsort(values)[::-1][:number]
    scaled = vectors[:, kept].T @ flat / np.sqrt(len(flat))
    return jnp.asarray(scaled.reshape(len(kept), *rows.shape[1:]), jnp.float32)
