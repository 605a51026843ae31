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

from experiments.open_face.color_solver import Albedo, Colors, evidence, misses, solve_all
from experiments.open_face.observed_colors import Seen

_CHUNK = 32  # photographs whose equations are summed at once


class Priors(NamedTuple):
    """What is known of components before photographs are seen.

    Attributes:
        count: independent measurements that a photograph counts as.
        step: a component's difference between neighbours that costs one, linear RGB (per square mesh).
        size: a component's value at a vertex that costs one, linear RGB, (U,): small where it should vanish.
        plane: the same of its part that melanin and blood cannot make.
        tones: orthonormal changes of the whole skin's tone, of which components have next to none,
            (T, U, 3): the named components have it, and photographs of too few kinds of people must not
            change it.
        tone: what costs one of it, as `size`.
    """

    count: float
    step: float
    size: Float[Array, " U"]
    plane: float
    tones: Float[Array, "T U 3"]
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
        offset: mean of the photographed persons' albedo less the model's and the named components', (U, 3).
        components: (K, U, 3), in units of the coefficients' prior.
        colors: of the photographs: coefficients (N, F + K), named first, and lighting (N, 9, 3).
        covariance: of the coefficients given the photograph, (N, F + K, F + K).
        share: how much each photograph counts, 1 on average, (N,).
    """

    offset: Float[Array, "U 3"]
    components: Float[Array, "K U 3"]
    colors: Colors
    covariance: Float[Array, "N C C"]
    share: Float[Array, " N"]


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
    mean = mean + learned.offset[fold.of]
    basis = jnp.concatenate([named, learned.components[:, fold.of]])
    model = Albedo(mean[places], basis[:, places], mean[some], basis[:, some])
    part = Seen(*(values[:, places] for values in seen))
    colors, covariance = solve_all(model, learned.colors, part, steps, priors.count)
    return learned._replace(colors=colors, covariance=covariance)


@jax.jit
def _sums(mean, named, fold: Fold, learned: Learned, seen: Seen, count):
    """Normal equations of the components (and the offset, first) summed over the photographs: (U, 3, 1 + K,
    1 + K) and (U, 3, 1 + K), and the energy of the evidence."""
    shown = mean + learned.offset[fold.of]
    basis = jnp.concatenate([named, learned.components[:, fold.of]])
    pairs = basis[:, fold.pair[:, 0]]  # named and learned components are symmetric
    kept, unknowns = len(named), 1 + len(learned.components)

    def one(colors: Colors, here: Seen):
        what = evidence(here, count)
        model = Albedo(shown, basis, shown, basis)
        miss, slope, _, weight = misses(model, colors, what)
        stiff = _sum_pairs(weight[:, None] * slope**2, fold)
        pull = -_sum_pairs(weight[:, None] * slope * miss, fold)
        return stiff, pull

    def add(total, item):
        colors, covariance, here, there = item
        stiff, pull = jax.vmap(one)(colors, here)
        stiff, pull = stiff * there[:, None, None], pull * there[:, None, None]
        own = jnp.concatenate([jnp.ones_like(colors.albedo[:, :1]), colors.albedo[:, kept:]], 1)
        spread = jnp.pad(covariance[:, kept:, :], ((0, 0), (1, 0), (0, 0)))  # the offset is certain
        moments = own[:, :, None] * own[:, None] + jnp.pad(spread[:, :, kept:], ((0, 0), (0, 0), (1, 0)))
        flat = stiff.reshape(len(stiff), -1)
        matrix = (flat.T @ moments.reshape(len(stiff), -1)).reshape(*stiff.shape[1:], unknowns, unknowns)
        # Coefficients that are uncertain together pull on each other's components.
        across = (flat.T @ spread.reshape(len(stiff), -1)).reshape(*stiff.shape[1:], unknowns, len(basis))
        right = jnp.einsum("nuc,nk->uck", pull, own) - jnp.einsum("uckl,luc->uck", across, pairs)
        return (total[0] + matrix, total[1] + right), None

    count_all = len(seen.weight)
    chunks = -(-count_all // _CHUNK)

    def cut(values):
        padded = jnp.pad(values, [(0, chunks * _CHUNK - count_all)] + [(0, 0)] * (values.ndim - 1))
        return padded.reshape(chunks, _CHUNK, *values.shape[1:])

    items = jax.tree.map(cut, (learned.colors, learned.covariance, seen))
    empty = jnp.zeros((len(fold.pair), 3, unknowns, unknowns)), jnp.zeros((len(fold.pair), 3, unknowns))
    return jax.lax.scan(add, empty, (*items, cut(learned.share)))[0]


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
def _maximum(matrix, right, fold: Fold, now, priors: Priors, iterations: int):
    """Moves the components `now` (U, 3, 1 + K) to the solution under the priors by conjugate gradients."""
    size = 1.0 / priors.size[:, None, None] ** 2

    def prior(values):
        bent = jnp.einsum("uc,uck->uk", fold.normal, values)
        out_of_plane = fold.normal[:, :, None] * bent[:, None] / priors.plane**2
        toned = jnp.einsum("tuc,uck->tk", priors.tones, values) / priors.tone**2
        smooth = _roughness(values, fold) / priors.step**2 + values * size
        return smooth + out_of_plane + jnp.einsum("tuc,tk->uck", priors.tones, toned)

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
    """The components given the photographs' coefficients and lights."""
    matrix, right = _sums(mean, named, fold, learned, seen, priors.count)
    now = jnp.moveaxis(jnp.concatenate([learned.offset[None], learned.components]), 0, -1)
    found = jnp.moveaxis(_maximum(matrix, right, fold, now, priors, iterations), -1, 0)
    return whitened(learned._replace(offset=found[0], components=found[1:]), len(named))


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
    offset = np.asarray(learned.offset, np.float64) + (middle @ flat).reshape(learned.offset.shape)
    _, turn = np.linalg.eigh((root.T @ flat) @ (root.T @ flat).T)
    mix = root @ turn[:, ::-1]  # old coefficients = mix @ new ones
    back = np.linalg.inv(mix)
    whole = np.eye(kept + len(mix))
    whole[kept:, kept:] = back
    whole = jnp.asarray(whole, jnp.float32)
    moved = learned.colors.albedo.at[:, kept:].set(jnp.asarray(own, jnp.float32))
    return learned._replace(
        offset=jnp.asarray(offset, jnp.float32),
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

    @jax.jit
    def left(colors: Colors, here: Seen):
        what = evidence(here, count)
        shown = mean + learned.offset[fold.of]
        miss, slope, _, weight = misses(Albedo(shown, named, shown, named), colors, what)
        stiff = _sum_pairs(weight[:, None] * slope**2, fold)
        # As a posterior mean whose prior is 0.05 of linear RGB; what is hardly seen stays at the mean.
        return -_sum_pairs(weight[:, None] * slope * miss, fold) / (stiff + stiff.mean())

    rows = jax.lax.map(lambda item: left(*item), (learned.colors, seen))
    flat = np.asarray(rows.reshape(len(rows), -1), np.float64)
    flat -= flat.mean(0)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    kept = np.argsort(values)[::-1][:number]
    scaled = vectors[:, kept].T @ flat / np.sqrt(len(flat))
    return jnp.asarray(scaled.reshape(len(kept), *rows.shape[1:]), jnp.float32)
