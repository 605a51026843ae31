"""Standard measures of the adult head: their places on the mesh, published figures, a Gaussian tuned to
them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from .makehuman import BaseMesh
from .population import Gaussian
from .topology import HeadMesh

# Anthropometric points as (averages of) vertices of MakeHuman's base mesh hm08; of pairs the subject's left
# one.
POINTS: dict[str, tuple[int, ...]] = {
    "sellion": (132,),
    "glabella": (227,),
    "pronasale": (297,),
    "subnasale": (317,),
    "labrale_superius": (466,),
    "stomion": (474,),
    "labrale_inferius": (496,),
    "sublabiale": (491,),
    "pogonion": (733,),
    "menton": (732,),
    "opisthocranion": (962,),
    "euryon": (7568,),
    "frontotemporale": (7005, 7031),
    "zygion": (11845,),
    "gonion": (7459,),
    "tragion": (12207,),
    "ear_top": (12012,),
    "ear_bottom": (12340,),
    "endocanthion": (6850,),
    "exocanthion": (6805,),
    "alare": (7098,),
    "cheilion": (7183,),
    "nasal_root": (6898,),
    "orbital_rim": (11857,),
    "subpupil": (11667,),
    "cheekbone": (11681,),
    "alar_base": (7057,),
}
PUPIL_RING = (14598, 14607, 14616, 14625, 14634, 14643, 14652, 14661)  # front pole of the left eyeball


@dataclass(frozen=True)
class Measure:
    """One measure: function of the point table (name -> (3,) left or midline; "name-" the right one) to
    millimetres."""

    name: str
    value: Callable[[dict[str, np.ndarray]], np.ndarray]
    male: tuple[float, float]
    female: tuple[float, float]
    source: str
    slack: float = 0.3  # how closely the mean is to be met, as a fraction of the standard deviation
    # Where the mean is moved to meet it: the face first, then the braincase and ears alone.
    parts: tuple[str, ...] = ("face",)

    @property
    def mean(self) -> float:
        """Mean of men and women in equal parts."""
        return 0.5 * (self.male[0] + self.female[0])

    @property
    def sd(self) -> float:
        """Standard deviation of men and women in equal parts, pooled."""
        within = 0.5 * (self.male[1] ** 2 + self.female[1] ** 2)
        return float(np.sqrt(within + 0.25 * (self.male[0] - self.female[0]) ** 2))


def _between(a: str, b: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    return lambda p: np.linalg.norm(p[a] - p[b], axis=-1)


def _width(a: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    return _between(a, a + "-")


def _angle(a: str, b: str, c: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Angle at b, degrees."""

    def value(p: dict[str, np.ndarray]) -> np.ndarray:
        u, v = p[a] - p[b], p[c] - p[b]
        cosine = (u * v).sum(-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1))
        return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))

    return value


def _profile(a: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Horizontal distance in front of subnasale (the "true vertical line"), head pitched so that glabella
    and pogonion

    lie at their published distances behind it: -8.25 and -3.05 mm; independent of the pose of the mesh.
    """

    def value(p: dict[str, np.ndarray]) -> np.ndarray:
        chord = p["glabella"] - p["pogonion"]
        length = np.linalg.norm(chord[..., 1:], axis=-1)
        sine = -5.2 / length
        angle = np.arcsin(sine) - np.arctan2(chord[..., 2], chord[..., 1])
        point = 0.5 * (p[a] + p.get(a + "-", p[a])) - p["subnasale"]
        return np.sin(angle) * point[..., 1] + np.cos(angle) * point[..., 2]

    return value


NIOSH = "Zhuang & Bradtmiller 2005, J Occup Environ Hyg 2:567 (US civilians)"
FARKAS = "Farkas 1994, Anthropometry of the Head and Face (North American whites)"
ANSUR = "Gordon et al. 1989, ANSUR, Natick TR-89/044"
ARNETT = "Arnett et al. 1999, AJODO 116:239 (adults; distance to the true vertical line)"

BOTH = ("face", "cranium")
MEASURES = (
    Measure("face width (bizygomatic)", _width("zygion"), (143.5, 6.9), (135.1, 6.5), NIOSH),
    Measure("menton-sellion length", _between("menton", "sellion"), (122.7, 7.0), (113.4, 6.1), NIOSH, 0.2),
    Measure("subnasale-sellion length", _between("subnasale", "sellion"), (52.0, 4.1), (48.2, 3.8), NIOSH),
    Measure("nose breadth", _width("alare"), (36.6, 4.1), (33.2, 3.9), NIOSH),
    Measure("nose protrusion", _between("subnasale", "pronasale"), (21.1, 2.7), (19.8, 2.7), NIOSH, 0.1),
    Measure("nasal root breadth", _width("nasal_root"), (16.6, 2.3), (16.3, 2.0), NIOSH),
    Measure("interpupillary distance", _width("pupil"), (64.5, 3.6), (61.9, 3.5), NIOSH),
    Measure("lip length", _width("cheilion"), (51.1, 4.2), (48.0, 4.0), NIOSH),
    Measure("bigonial breadth", _width("gonion"), (120.4, 10.4), (110.1, 8.9), NIOSH),
    Measure("minimum frontal breadth", _width("frontotemporale"), (105.5, 5.7), (102.9, 5.4), NIOSH),
    Measure("head breadth", _width("euryon"), (153.0, 6.0), (146.8, 5.6), NIOSH, 0.05, ("cranium",)),
    Measure(
        "head length",
        _between("glabella", "opisthocranion"),
        (197.3, 7.4),
        (187.5, 7.2),
        NIOSH,
        0.05,
        ("cranium",),
    ),
    Measure("intercanthal width", _width("endocanthion"), (33.3, 2.7), (31.8, 2.3), FARKAS),
    Measure("biocular width", _width("exocanthion"), (91.2, 3.0), (87.8, 3.2), FARKAS),
    Measure("upper lip height (sn-sto)", _between("subnasale", "stomion"), (22.3, 2.1), (20.1, 2.0), FARKAS),
    Measure(
        "upper vermilion height", _between("labrale_superius", "stomion"), (8.0, 1.4), (8.7, 1.3), FARKAS
    ),
    Measure(
        "lower vermilion height", _between("labrale_inferius", "stomion"), (9.3, 1.6), (9.4, 1.5), FARKAS
    ),
    Measure("lower face height (sn-gn)", _between("subnasale", "menton"), (72.6, 4.5), (64.3, 4.0), FARKAS),
    Measure("ear length", _between("ear_top", "ear_bottom"), (62.4, 3.7), (58.5, 3.5), FARKAS),
    Measure("bitragion breadth", _width("tragion"), (144.8, 5.5), (133.6, 5.0), ANSUR, 0.05, ("cranium",)),
    Measure(
        "tragion-sellion depth", _between("tragion", "sellion"), (123.0, 5.0), (117.0, 4.6), FARKAS, 0.3, BOTH
    ),
    Measure(
        "tragion-subnasale depth",
        _between("tragion", "subnasale"),
        (128.5, 5.3),
        (120.5, 5.0),
        FARKAS,
        0.3,
        BOTH,
    ),
    Measure(
        "tragion-menton depth", _between("tragion", "menton"), (146.0, 6.5), (135.0, 6.0), FARKAS, 0.3, BOTH
    ),
    Measure(
        "nasofrontal angle (degrees)",
        _angle("glabella", "sellion", "pronasale"),
        (130.3, 7.4),
        (134.3, 7.0),
        FARKAS,
        1.0,
    ),
    Measure("glabella before subnasale", _profile("glabella"), (-8.0, 2.5), (-8.5, 2.4), ARNETT, 1.0),
    Measure("nose tip before subnasale", _profile("pronasale"), (17.4, 1.7), (16.0, 1.4), ARNETT, 0.6),
    Measure("upper lip before subnasale", _profile("labrale_superius"), (3.3, 1.7), (3.7, 1.2), ARNETT, 0.35),
    Measure("lower lip before subnasale", _profile("labrale_inferius"), (1.0, 2.2), (1.9, 1.4), ARNETT, 0.35),
    Measure("sublabiale before subnasale", _profile("sublabiale"), (-7.1, 1.6), (-5.3, 1.5), ARNETT, 1.0),
    Measure("orbital rim before subnasale", _profile("orbital_rim"), (-22.4, 2.7), (-18.7, 2.0), ARNETT, 1.0),
    Measure("subpupil before subnasale", _profile("subpupil"), (-18.4, 1.9), (-14.8, 2.1), ARNETT, 1.0),
    Measure("cheekbone before subnasale", _profile("cheekbone"), (-25.2, 4.0), (-20.6, 2.4), ARNETT, 1.0),
    Measure("alar base before subnasale", _profile("alar_base"), (-15.0, 1.7), (-12.9, 1.1), ARNETT, 1.0),
)


@dataclass(frozen=True)
class PointRows:
    """Points as fixed linear functions of coarse vertices: name -> weights over coarse vertices, (C,)."""

    rows: dict[str, np.ndarray]

    def points(self, vertices: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate on (..., C, 3) vertices."""
        table = np.stack(list(self.rows.values()))
        used = np.flatnonzero(np.abs(table).max(0))
        found = np.einsum("pc,...cd->p...d", table[:, used], vertices[..., used, :], optimize=True)
        return dict(zip(self.rows, found, strict=True))


def measure_all(rows: PointRows, vertices: np.ndarray) -> np.ndarray:
    """Every measure of heads (..., C, 3), millimetres, (..., M)."""
    points = rows.points(vertices)
    return np.stack([m.value(points) for m in MEASURES], -1)


def jacobian(rows: PointRows, gaussian: Gaussian) -> np.ndarray:
    """Change of every measure per standard deviation of every factor at the mean, (K, M)."""
    at, steps, h = rows.points(gaussian.mean), rows.points(gaussian.factors), 1e-3

    def evaluate(sign: float) -> np.ndarray:
        moved = {name: at[name] + sign * h * steps[name] for name in at}
        return np.stack([m.value(moved) for m in MEASURES], -1)

    return (evaluate(1.0) - evaluate(-1.0)) / (2.0 * h)


RIDGE = 0.1


def _transport(current: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The symmetric T with T current T = wanted: the optimal transport between two centred Gaussians."""
    values, vectors = np.linalg.eigh(current)
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    values, vectors = np.linalg.eigh(root @ wanted @ root)
    return inverse @ ((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T) @ inverse


def tune_mean(gaussian: Gaussian, rows: PointRows, part: str, rounds: int = 3) -> np.ndarray:
    """The mean moved towards the published means of one part's measures, (C, 3).

    It moves by S J^T (J S J^T + slack^2)^-1 (published - ours), the likeliest change under the covariance S
    when
    measures are known up to `Measure.slack`: where a caliper lands on a mesh is known to a millimetre or two
    only, the
    sources measured different people, and some of their figures contradict each other.
    """
    chosen = np.array([i for i, m in enumerate(MEASURES) if part in m.parts])
    published = np.array([MEASURES[i].mean for i in chosen])
    noise = np.diag([(MEASURES[i].slack * MEASURES[i].sd) ** 2 for i in chosen])
    mean, moved = gaussian.mean.copy(), np.zeros(len(gaussian.factors))
    for _ in range(rounds):
        j = jacobian(rows, Gaussian(mean, gaussian.factors))[:, chosen]
        missing = published - measure_all(rows, mean)[chosen] + moved @ j
        moved = j @ np.linalg.solve(j.T @ j + noise, missing)
        mean = gaussian.mean + np.tensordot(moved, gaussian.factors, 1)
    return mean


def tune_spread(gaussian: Gaussian, rows: PointRows, rounds: int = 8) -> Gaussian:
    """The Gaussian stretched along the measured directions until the measures have the published deviations.

    The coefficients are stretched by the symmetric map that gives J S J^T the published variances and keeps
    its
    correlations; everything uncorrelated with the measures stays.
    """
    sd = np.array([m.sd for m in MEASURES])
    factors = gaussian.factors.reshape(len(gaussian.factors), -1)
    for _ in range(rounds):
        j = jacobian(rows, Gaussian(gaussian.mean, factors.reshape(gaussian.factors.shape)))
        ours = np.linalg.norm(j, axis=0)
        # A ridge keeps combinations of measures that hardly vary (sn-gn against sn-sto and lip heights) from
        # being
        # blown up; it costs accuracy of each round, which the following rounds make up for.
        current = j.T @ j + RIDGE * np.diag(ours**2)
        transport = _transport(current, current * np.outer(sd / ours, sd / ours))
        # z' = z + J C^-1 (T - 1) J^T z, hence factors' = (1 + ...)^T factors.
        factors = factors + j @ ((transport - np.eye(len(sd))).T @ np.linalg.solve(current, j.T @ factors))
    return Gaussian(gaussian.mean, factors.reshape(gaussian.factors.shape))


def table_text(rows: PointRows, heads: np.ndarray) -> str:
    """The table measure | published mean (SD) | ours, as text; heads: samples, (N, C, 3)."""
    values = measure_all(rows, heads)
    lines = [f"{'measure':36s} | published mean (SD) | ours mean (SD)"]
    for i, m in enumerate(MEASURES):
        ours = f"{values[:, i].mean():7.1f} ({values[:, i].std():4.1f})"
        lines.append(f"{m.name:36s} | {m.mean:8.1f} ({m.sd:4.1f})     | {ours}")
    return "\n".join(lines)


def point_vertices(head: HeadMesh, base: BaseMesh) -> dict[str, np.ndarray]:
    """The anthropometric points as vertices (to be averaged) of the coarse head, which are also those of
    the fine one."""
    found = {}
    for name, chosen in {**POINTS, "pupil": PUPIL_RING}.items():
        found[name] = np.array([head.index(v) for v in chosen], np.int32)
        opposite = tuple(int(base.mirror[v]) for v in chosen)
        if opposite != chosen:
            found[name + "-"] = np.array([head.index(v) for v in opposite], np.int32)
    return found


def point_rows(head: HeadMesh, base: BaseMesh, matrix: sparse.csr_matrix) -> PointRows:
    """The anthropometric points as weights over coarse vertices; `matrix` refines coarse to fine vertices."""
    chosen = point_vertices(head, base)
    return PointRows(
        {name: np.asarray(matrix[vertices].mean(0)).ravel() for name, vertices in chosen.items()}
    )


def points_of(vertices: np.ndarray, chosen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Point table of heads (..., V, 3) given the vertices of each point (see `point_vertices`)."""
    return {name: vertices[..., indices, :].mean(-2) for name, indices in chosen.items()}
