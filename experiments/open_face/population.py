"""Draws heads from MakeHuman's identity sliders, adds smooth local modes, and keeps their Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .makehuman import DECIMETRE_MM, BaseMesh, MakeHumanFiles, macro_offsets, read_macro, read_target
from .topology import HeadMesh

FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck", "asym")
PAIRS = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
    ("l", "r"),
)
LEFT_OUT = (
    "head-trans-",
    "neck-trans-",
    "asymm-",
    "ear-shape-pointed",
    "neck-scale-vert",
    "measure-neck-height",
    "head-age",
)
SLIDER_SIGMA = 0.2  # of a slider that MakeHuman lets go from -1 to 1
SPECIAL_SIGMA = {"head-fat": 0.25, "nose-scale": 0.3, "nose-trans": 0.15, "ear-trans": 0.12, "head-": 0.1}
ONE_SIDED_SIGMA = 0.15
ASYMMETRY_SIGMA = 0.08
SIDE_SIGMA = 0.04  # difference between the left and the right slider of a pair
ANCESTRY = (0.22, 0.25, 0.53)  # mean fractions african, asian, caucasian
ANCESTRY_CONCENTRATION = 1.2  # Dirichlet: most persons lean to one ancestry
SEX_SIZE = 0.025  # men are larger, women smaller by this fraction of the mean
SIZE_SIGMA = 0.02
# Length scale and amplitude, millimetres, of the Gaussian process that lets the face go where no slider goes
# (Luethi et al. 2018, "Gaussian process morphable models").
LOCAL_SCALES = ((55.0, 1.4), (26.0, 0.85), (13.0, 0.35))
LOCAL_MODES = 110
LOCAL_ASYMMETRY = 0.3


@dataclass(frozen=True)
class Sliders:
    """Every detail slider as two one-sided offsets (negative and positive side), decimetres, on the coarse
    head.

    Attributes:
        names: (S,). negative, positive: (S, C, 3); a one-sided slider has a zero negative side.
        sigma: spread of the slider value, (S,).
        partner: index of the slider of the other side of the face, or -1, (S,).
    """

    names: tuple[str, ...]
    negative: np.ndarray
    positive: np.ndarray
    sigma: np.ndarray
    partner: np.ndarray


def read_sliders(files: MakeHumanFiles, base: BaseMesh, head: HeadMesh) -> Sliders:
    """Read all detail targets of the head and join them to sliders."""
    count = len(base.vertices)
    names, negative, positive, sigma = [], [], [], []
    for folder in FOLDERS:
        stems = [s for s in files.target_names(folder) if not any(part in s for part in LEFT_OUT)]
        left = set(stems)
        for stem in stems:
            if stem not in left:
                continue
            front, _, end = stem.rpartition("-")
            match = next(
                ((a, b) for a, b in PAIRS if end in (a, b) and {f"{front}-{a}", f"{front}-{b}"} <= left), None
            )
            if match is None:
                pair, label = (None, stem), stem
            else:
                pair, label = (f"{front}-{match[0]}", f"{front}-{match[1]}"), front
            both = []
            for name in pair:
                if name is None:
                    both.append(np.zeros((len(head.keep), 3)))
                    continue
                left.discard(name)
                suffix = (
                    ".target.gz"
                    if files.exists(f"data/mpfb2/targets/{folder}/{name}.target.gz")
                    else ".target"
                )
                both.append(read_target(files, f"mpfb2/targets/{folder}/{name}{suffix}", count)[head.keep])
            if max(np.abs(both[0]).max(), np.abs(both[1]).max()) < 1e-6:
                continue
            names.append(label)
            negative.append(both[0])
            positive.append(both[1])
            if folder == "asym":
                spread = ASYMMETRY_SIGMA
            elif match is None:
                spread = ONE_SIDED_SIGMA
            else:
                spread = next((v for k, v in SPECIAL_SIGMA.items() if k in label), SLIDER_SIGMA)
            sigma.append(spread)
    lookup = {name: i for i, name in enumerate(names)}
    partner = np.array(
        [
            lookup.get("r" + n[1:] if n.startswith("l-") else "l" + n[1:], -1)
            if n[:2] in ("l-", "r-")
            else -1
            for n in names
        ]
    )
    return Sliders(tuple(names), np.array(negative), np.array(positive), np.array(sigma), partner)


def draw_heads(files: MakeHumanFiles, base: BaseMesh, head: HeadMesh, number: int, seed: int) -> np.ndarray:
    """Draw `number` heads, millimetres, on the coarse mesh, not yet aligned, (N, C, 3)."""
    rng = np.random.default_rng(seed)
    macro = read_macro(files, head.keep, len(base.vertices))
    sliders = read_sliders(files, base, head)
    race = rng.dirichlet(np.array(ANCESTRY) * ANCESTRY_CONCENTRATION, number)
    sex = rng.integers(0, 2, number)
    male = np.clip(np.where(sex == 1, 0.9, 0.1) + 0.12 * rng.standard_normal(number), 0.0, 1.0)
    age = rng.beta(1.0, 2.6, number)
    muscle = np.clip(0.5 + 0.12 * rng.standard_normal(number), 0.0, 1.0)
    weight = np.clip(0.52 + 0.16 * rng.standard_normal(number), 0.0, 1.0)
    heads = base.vertices[head.keep] + macro_offsets(macro, race, male, age, muscle, weight)
    values = np.clip(rng.standard_normal((number, len(sliders.names))), -2.5, 2.5) * sliders.sigma
    one_sided = np.abs(sliders.negative).max((1, 2)) == 0
    values[:, one_sided] = np.abs(values[:, one_sided])
    for i, j in enumerate(sliders.partner):
        if j > i:
            noise = rng.standard_normal((number, 2)) * SIDE_SIGMA
            values[:, j] = values[:, i] + noise[:, 1]
            values[:, i] += noise[:, 0]
    flat = heads.reshape(number, -1)
    flat += np.maximum(values, 0.0) @ sliders.positive.reshape(len(sliders.names), -1)
    flat += np.maximum(-values, 0.0) @ sliders.negative.reshape(len(sliders.names), -1)
    size = 1.0 + SEX_SIZE * (2.0 * male - 1.0) + SIZE_SIGMA * rng.standard_normal(number)
    centre = flat.reshape(number, -1, 3).mean(1, keepdims=True)
    return ((flat.reshape(number, -1, 3) - centre) * size[:, None, None]) * DECIMETRE_MM


def align_rigidly(heads: np.ndarray, weights: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Remove rotation and translation (not size) by weighted generalised Procrustes; the mean keeps its
    left-right plane.

    Args:
        heads: (N, C, 3), millimetres. weights: of the vertices, (C,).

    Returns:
        Aligned heads, (N, C, 3).
    """
    w = weights / weights.sum()
    heads = heads - np.einsum("c,ncd->nd", w, heads)[:, None]
    target = heads.mean(0)
    for _ in range(rounds):
        cross = np.einsum("ncd,c,ce->nde", heads, w, target)
        u, _, vt = np.linalg.svd(cross)
        sign = np.sign(np.linalg.det(u @ vt))
        u[:, :, 2] *= sign[:, None]
        heads = np.einsum("ncd,nde->nce", heads, u @ vt)
        target = heads.mean(0)
    return heads


def symmetrise(vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Average of a head and its mirror image about x = 0, (C, 3)."""
    return 0.5 * (vertices + vertices[mirror] * np.array([-1.0, 1.0, 1.0]))


def local_modes(
    mean: np.ndarray,
    mirror: np.ndarray,
    allowed: np.ndarray,
    eyes: tuple[np.ndarray, ...],
    rims: tuple[np.ndarray, ...],
) -> np.ndarray:
    """One-sigma displacement fields of a Gaussian process on the mean face, mostly left-right symmetric.

    Args:
        mean: coarse vertices, (C, 3). mirror: (C,). allowed: how far each vertex may take part, (C,).
        eyes: vertices of each eyeball. rims: vertices of the lid rims that each eyeball follows.

    Returns:
        (K, C, 3), millimetres.
    """
    from scipy.sparse.linalg import eigsh

    squared = ((mean[:, None] - mean[None]) ** 2).sum(2)
    kernel = sum(s**2 * np.exp(-squared / (2.0 * length**2)) for length, s in LOCAL_SCALES)
    kernel *= allowed[:, None] * allowed[None]
    parts = {}
    for name, sign in (("even", 1.0), ("odd", -1.0)):
        values, vectors = eigsh(0.5 * (kernel + sign * kernel[:, mirror]), k=LOCAL_MODES, which="LA")
        parts[name] = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    modes = []
    for symmetric, gain in ((True, np.sqrt(1 - LOCAL_ASYMMETRY**2)), (False, LOCAL_ASYMMETRY)):
        for axis in range(3):
            even = (axis != 0) == symmetric
            field = np.zeros((LOCAL_MODES, len(mean), 3))
            # Half of the kernel's variance is even and half odd; doubling restores the stated amplitude.
            field[:, :, axis] = np.sqrt(2.0) * gain * parts["even" if even else "odd"]
            modes.append(field)
    fields = np.concatenate(modes)
    for eye, rim in zip(eyes, rims, strict=True):
        fields[:, eye] = fields[:, rim].mean(1, keepdims=True)
    return fields


@dataclass(frozen=True)
class Gaussian:
    """Heads as mean + z . factors with z ~ N(0, 1): mean (C, 3), factors (K, C, 3), millimetres."""

    mean: np.ndarray
    factors: np.ndarray


def compress(gaussian: Gaussian, weights: np.ndarray, components: int) -> tuple[Gaussian, np.ndarray]:
    """The leading principal components under vertex weights.

    Returns:
        Gaussian with `components` factors, and the weighted variance of every component, largest first.
    """
    k = len(gaussian.factors)
    flat = gaussian.factors.reshape(k, -1)
    w = np.repeat(weights / weights.sum(), 3)
    values, vectors = np.linalg.eigh((flat * w) @ flat.T)
    order = np.argsort(-values)
    # vectors are orthogonal, so z stays standard normal in the rotated coordinates.
    rotated = vectors[:, order[:components]].T @ flat
    return Gaussian(gaussian.mean, rotated.reshape(-1, *gaussian.mean.shape)), values[order]
