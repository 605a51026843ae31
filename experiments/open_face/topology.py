"""Cuts the head out of MakeHuman's base mesh and refines the face: fixed linear maps from base to model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from .makehuman import BaseMesh

NECK_LOOP = (
    815,
    7515,
)  # midline vertex in front of the neck and the search start of the loop around the neck base
NOSE_TIP = 297
LEFT_LID_LOOP = (6784, 6785)  # two neighbours on the rim of the left eyelids, upper margin
SOCKET_RINGS = 2  # rings of the eye pocket kept behind the lid rim (thickness of the lid)


class QuadMesh:
    """Neighbour tables of a quad mesh and the edge loops on it."""

    def __init__(self, quads: np.ndarray) -> None:
        self.quads = quads
        self.neighbours: dict[int, set[int]] = defaultdict(set)
        self.faces_of: dict[int, list[int]] = defaultdict(list)
        for index, quad in enumerate(quads.tolist()):
            for i in range(4):
                self.neighbours[quad[i]].add(quad[(i + 1) % 4])
                self.neighbours[quad[(i + 1) % 4]].add(quad[i])
                self.faces_of[quad[i]].append(index)

    def ahead(self, previous: int, current: int) -> int | None:
        """Next vertex straight ahead on an edge loop; None at an irregular vertex."""
        if len(self.neighbours[current]) != 4 or len(self.faces_of[current]) != 4:
            return None
        beside = {
            v for f in self.faces_of[current] if previous in self.quads[f] for v in self.quads[f].tolist()
        }
        candidates = [v for v in self.neighbours[current] if v not in beside]
        return candidates[0] if len(candidates) == 1 else None

    def loop(self, first: int, second: int, limit: int = 120) -> list[int]:
        """Vertices of the edge loop that starts with the edge (first, second)."""
        loop = [first, second]
        while len(loop) < limit:
            following = self.ahead(loop[-2], loop[-1])
            if following is None or following == first:
                break
            loop.append(int(following))
        return loop

    def flood(self, start: int, barrier: set[int]) -> set[int]:
        """Vertices reached from `start` over edges without stepping onto `barrier`."""
        seen, stack = {start}, [start]
        while stack:
            for v in self.neighbours[stack.pop()]:
                if v not in seen and v not in barrier:
                    seen.add(v)
                    stack.append(v)
        return seen


@dataclass(frozen=True)
class HeadMesh:
    """The coarse head: quads of skin and eyeballs on vertices taken from the base mesh.

    Attributes:
        keep: base index of every coarse vertex, (C,).
        quads, uv_quads: (F, 4); uv: (T, 2).
        is_eye: coarse vertex belongs to an eyeball, (C,).
        pocket: coarse vertex lies inside the lids, behind the rim, (C,).
        mouth_sac: coarse vertex lies inside the mouth, behind the lips' contact line, (C,).
        is_tongue: coarse vertex belongs to the tongue, (C,).
        mirror: coarse index of the mirror image, (C,).
    """

    keep: np.ndarray
    quads: np.ndarray
    uv: np.ndarray
    uv_quads: np.ndarray
    is_eye: np.ndarray
    pocket: np.ndarray
    mouth_sac: np.ndarray
    is_tongue: np.ndarray
    mirror: np.ndarray

    def index(self, base_vertex: int) -> int:
        """Coarse index of a base vertex."""
        found = np.flatnonzero(self.keep == base_vertex)
        if len(found) != 1:
            raise KeyError(f"base vertex {base_vertex} is not part of the head")
        return int(found[0])


def cut_head(base: BaseMesh) -> HeadMesh:
    """Head, ears and neck down to the loop around its base, lids without their eye pockets, both eyeballs
    and the tongue."""
    body = QuadMesh(base.quads[base.groups == "body"])
    body_uv = base.uv_quads[base.groups == "body"]
    side = [v for v in body.neighbours[NECK_LOOP[0]] if base.vertices[v, 0] > 0.05]
    neck = body.loop(NECK_LOOP[0], side[0])
    head = body.flood(NOSE_TIP, set(neck)) | set(neck)
    pocket: set[int] = set()
    dropped: set[int] = set()
    for sign in (1, -1):
        rim = body.loop(*LEFT_LID_LOOP)
        inside = 7750  # a vertex of the left eye pocket
        if sign < 0:
            rim = [int(base.mirror[v]) for v in rim]
            inside = int(base.mirror[inside])
        within = body.flood(inside, set(rim))
        if len(within) > 2000:
            raise ValueError("the lid rim does not close: the base mesh is not the expected hm08")
        ring, kept = set(rim), set()
        for _ in range(SOCKET_RINGS):
            ring = {v for r in ring for v in body.neighbours[r] if v in within and v not in kept}
            kept |= ring
        pocket |= kept
        dropped |= within - kept
    head -= dropped
    inner_lip = body.loop(474, min(v for v in body.neighbours[474] if base.vertices[v, 0] > 0.01))
    sac = body.flood(656, set(inner_lip))
    if len(sac) > 3000:
        raise ValueError("the lips' contact loop does not close: the base mesh is not the expected hm08")
    chosen = np.array([all(v in head for v in quad) for quad in body.quads.tolist()])
    eyes = np.isin(base.groups, ["helper-l-eye", "helper-r-eye"])
    tongue = base.groups == "helper-tongue"
    quads = np.concatenate([body.quads[chosen], base.quads[eyes], base.quads[tongue]])
    uv_quads = np.concatenate([body_uv[chosen], base.uv_quads[eyes], base.uv_quads[tongue]])
    keep = np.unique(quads)
    uv_keep = np.unique(uv_quads)
    lookup = np.full(len(base.vertices), -1)
    lookup[keep] = np.arange(len(keep))
    return HeadMesh(
        keep=keep,
        quads=lookup[quads],
        uv=base.uv[uv_keep],
        uv_quads=np.searchsorted(uv_keep, uv_quads),
        is_eye=np.isin(keep, np.unique(base.quads[eyes])),
        pocket=np.isin(keep, list(pocket)),
        mouth_sac=np.isin(keep, list(sac)),
        is_tongue=np.isin(keep, np.unique(base.quads[tongue])),
        mirror=lookup[base.mirror[keep]],
    )


@dataclass(frozen=True)
class Refinement:
    """Fine vertices as a fixed linear map of coarse ones: fine = matrix @ coarse; coarse vertices come
    first."""

    matrix: sparse.csr_matrix
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray


def refine(
    quads: np.ndarray, uv: np.ndarray, uv_quads: np.ndarray, chosen: np.ndarray, reference: np.ndarray
) -> Refinement:
    """One Catmull-Clark step on the chosen quads; its rim keeps its place and the quads beside it become
    polygons.

    Args:
        quads, uv_quads: (F, 4). chosen: (F,) bool. reference: coarse vertices, only to choose diagonals, (C,
        3).

    Returns:
        Refinement with triangles.
    """
    count = len(reference)
    edge_faces: dict[tuple[int, int], list[int]] = defaultdict(list)
    for f, quad in enumerate(quads.tolist()):
        for i in range(4):
            a, b = quad[i], quad[(i + 1) % 4]
            edge_faces[min(a, b), max(a, b)].append(f)
    rows: list[dict[int, float]] = [{i: 1.0} for i in range(count)]

    def blend(parts: list[tuple[dict[int, float], float]]) -> dict[int, float]:
        total: dict[int, float] = defaultdict(float)
        for row, weight in parts:
            for key, value in row.items():
                total[key] += weight * value
        return dict(total)

    original = [{i: 1.0} for i in range(count)]
    face_point: dict[int, int] = {}
    for f in np.flatnonzero(chosen):
        face_point[int(f)] = len(rows)
        rows.append({int(v): 0.25 for v in quads[f]})
    edge_point: dict[tuple[int, int], int] = {}
    for (a, b), beside in edge_faces.items():
        inside = [f for f in beside if chosen[f]]
        if not inside:
            continue
        edge_point[a, b] = len(rows)
        if len(inside) == 2:
            rows.append(
                blend(
                    [(original[a], 0.25), (original[b], 0.25)] + [(rows[face_point[f]], 0.25) for f in inside]
                )
            )
        else:
            rows.append({a: 0.5, b: 0.5})
    faces_of: dict[int, list[int]] = defaultdict(list)
    for f, quad in enumerate(quads.tolist()):
        for v in quad:
            faces_of[v].append(f)
    edges_of: dict[int, list[int]] = defaultdict(list)
    for a, b in edge_faces:
        edges_of[a].append(b)
        edges_of[b].append(a)
    for v in range(count):
        n = len(faces_of[v])
        if n == 0 or n != len(edges_of[v]) or not all(chosen[f] for f in faces_of[v]):
            continue
        parts = [(original[v], (n - 2.0) / n)]
        parts += [(original[w], 1.0 / n**2) for w in edges_of[v]]
        parts += [(rows[face_point[f]], 1.0 / n**2) for f in faces_of[v]]
        rows[v] = blend(parts)
    new_uv = uv.tolist()
    uv_middle: dict[tuple[int, int], int] = {}

    def uv_between(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in uv_middle:
            uv_middle[key] = len(new_uv)
            new_uv.append([(uv[a][0] + uv[b][0]) / 2, (uv[a][1] + uv[b][1]) / 2])
        return uv_middle[key]

    faces: list[list[int]] = []
    uv_faces: list[list[int]] = []

    def split(quad: list[int], uv_quad: list[int]) -> None:
        d0 = np.linalg.norm(reference_fine[quad[0]] - reference_fine[quad[2]])
        d1 = np.linalg.norm(reference_fine[quad[1]] - reference_fine[quad[3]])
        turn = (
            0
            if d0 < d1 - 1e-6
            or (abs(d0 - d1) <= 1e-6 and reference_fine[quad[0], 0] >= reference_fine[quad[1], 0])
            else 1
        )
        q, u = quad[turn:] + quad[:turn], uv_quad[turn:] + uv_quad[:turn]
        faces.extend([[q[0], q[1], q[2]], [q[0], q[2], q[3]]])
        uv_faces.extend([[u[0], u[1], u[2]], [u[0], u[2], u[3]]])

    indices = [(r, c, w) for r, row in enumerate(rows) for c, w in row.items()]
    r, c, w = (np.array(x) for x in zip(*indices, strict=True))
    matrix = sparse.csr_matrix((w, (r, c)), shape=(len(rows), count))
    reference_fine = matrix @ reference
    for f, quad in enumerate(quads.tolist()):
        uvq = uv_quads[f].tolist()
        middles = [
            edge_point.get((min(quad[i], quad[(i + 1) % 4]), max(quad[i], quad[(i + 1) % 4])))
            for i in range(4)
        ]
        if chosen[f]:
            centre, uv_centre = face_point[f], len(new_uv)
            new_uv.append(np.mean([uv[u] for u in uvq], 0).tolist())
            uv_mid = [uv_between(uvq[i], uvq[(i + 1) % 4]) for i in range(4)]
            for i in range(4):
                split(
                    [quad[i], middles[i], centre, middles[i - 1]],
                    [uvq[i], uv_mid[i], uv_centre, uv_mid[i - 1]],
                )
        elif all(m is None for m in middles):
            split(quad, uvq)
        else:
            polygon, uv_polygon, first = [], [], None
            for i in range(4):
                polygon.append(quad[i])
                uv_polygon.append(uvq[i])
                if middles[i] is not None:
                    first = len(polygon) if first is None else first
                    polygon.append(middles[i])
                    uv_polygon.append(uv_between(uvq[i], uvq[(i + 1) % 4]))
            polygon = polygon[first:] + polygon[:first]
            uv_polygon = uv_polygon[first:] + uv_polygon[:first]
            for i in range(1, len(polygon) - 1):
                faces.append([polygon[0], polygon[i], polygon[i + 1]])
                uv_faces.append([uv_polygon[0], uv_polygon[i], uv_polygon[i + 1]])
    return Refinement(matrix, np.array(faces), np.array(new_uv), np.array(uv_faces))
