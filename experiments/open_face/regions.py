"""Regions of the open face model, drawn on the reference head: skin, lips, eyes, brows, ears, neck and so
on."""

from __future__ import annotations

import numpy as np

from .makehuman import BaseMesh, MakeHumanFiles, read_target
from .topology import HeadMesh, QuadMesh, Refinement

LIP_BORDER, LIP_CONTACT = (
    466,
    474,
)  # midline vertices of the loops along the vermilion border and the lips' contact
BROW_LINE = (
    (11.5, 749.0, 143.8),
    (18.0, 751.8, 143.2),
    (29.0, 754.5, 140.8),
    (40.0, 754.3, 135.5),
    (48.5, 750.8, 126.5),
    (55.5, 745.5, 115.8),
)
BROW_HALF_HEIGHT = (4.0, 4.2, 3.9, 3.3, 2.6, 1.6)
# The jaw's lower edge and the hair line in side view: height over depth z on the reference head, millimetres.
JAW_EDGE = ((-60, 40, 50, 62, 92, 118, 134), (674, 682, 676, 646, 626, 620, 616))
HAIR_LINE = (
    (-60, 0, 35, 50, 60, 66, 78, 92, 108, 122, 134, 145),
    (668, 680, 694, 716, 738, 752, 772, 785, 792, 798, 803, 806),
)


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; `low` > `high` falls instead."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def distance_to_line(points: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of points (V, 3) to a polyline (P, 3) and where along it (0 .. P-1), both (V,)."""
    start, step = line[:-1], np.diff(line, axis=0)
    t = np.clip(np.einsum("vsk,sk->vs", points[:, None] - start, step) / (step**2).sum(1), 0.0, 1.0)
    distance = np.linalg.norm(points[:, None] - start - t[..., None] * step, axis=2)
    best = distance.argmin(1)
    index = np.arange(len(points))
    return distance[index, best], best + t[index, best]


def lip_rings(body: QuadMesh, base: BaseMesh) -> tuple[set[int], set[int]]:
    """Base vertices of the vermilion (inside its border, outside the contact line) and of the border
    itself."""

    def side(v: int) -> int:
        return min(w for w in body.neighbours[v] if base.vertices[w, 0] > 0.01)

    border = set(body.loop(LIP_BORDER, side(LIP_BORDER)))
    contact = set(body.loop(LIP_CONTACT, side(LIP_CONTACT)))
    between = body.flood(468, border | contact)
    if len(between) > 400:
        raise ValueError("the lip loops do not close: the base mesh is not the expected hm08")
    return between | contact, border


def draw_regions(
    files: MakeHumanFiles,
    base: BaseMesh,
    head: HeadMesh,
    refinement: Refinement,
    reference: np.ndarray,
    hidden: np.ndarray,
) -> dict[str, np.ndarray]:
    """All regions as membership in [0, 1] of fine vertices, (V,) each.

    Args:
        reference: fine vertices of the reference head, MakeHuman frame, millimetres, (V, 3).
        hidden: fine vertices that no outside view sees, (V,) bool.
    """
    body = QuadMesh(base.quads[base.groups == "body"])
    matrix = refinement.matrix
    x, y, z = reference.T
    eyes = (matrix @ head.is_eye.astype(float) > 0.5).astype(float)
    inside = matrix @ (head.pocket | head.mouth_sac | head.is_tongue).astype(float)
    nostril = hidden & (np.abs(x) < 16) & (y > 686) & (y < 712) & (z > 115)
    inner = np.maximum(inside, nostril) * (1 - eyes)
    outer = (1 - eyes) * (1 - inner)

    vermilion, border = lip_rings(body, base)
    lips = outer * smooth_step(
        matrix @ (np.isin(head.keep, list(vermilion)) + 0.5 * np.isin(head.keep, list(border))), 0.3, 0.8
    )

    pull = np.linalg.norm(
        read_target(files, "mpfb2/targets/ears/l-ear-wing-incr.target.gz", len(base.vertices)), axis=1
    )
    pull = np.maximum(pull, pull[base.mirror])[head.keep]
    ears = outer * smooth_step(matrix @ (pull / pull.max()), 0.06, 0.3) * smooth_step(z, 64, 56)

    mirrored = np.stack([np.abs(x), y, z], 1)
    distance, along = distance_to_line(mirrored, np.array(BROW_LINE))
    half = np.interp(along, np.arange(len(BROW_HALF_HEIGHT)), BROW_HALF_HEIGHT)
    ends = smooth_step(along, 0.0, 0.6) * smooth_step(along, 5.0, 4.4)
    brows = outer * smooth_step(distance / half, 1.15, 0.6) * (0.35 + 0.65 * ends)

    neck = outer * (1 - ears) * smooth_step(y - np.interp(z, *JAW_EDGE), 5, -5)
    scalp = outer * (1 - ears) * (1 - neck) * smooth_step(y - np.interp(z, *HAIR_LINE), -7, 7)
    skin = outer * (1 - lips) * (1 - brows) * (1 - scalp)

    mouth_y = 668.0
    beard_area = smooth_step(y, mouth_y + 18, mouth_y + 6) * smooth_step(np.abs(x), 52, 40)
    sideburn = smooth_step(z, 98, 84) * smooth_step(y, 735, 715) * smooth_step(np.abs(x), 40, 52)
    cheek_edge = smooth_step(y - np.interp(z, (60, 90, 120, 145), (715, 680, 672, 684)), 6, -6)
    chin_patch = distance_to_line(mirrored, np.array([(0.0, 655.0, 145.0), (8.0, 655.0, 144.0)]))[0]
    beard = (
        outer
        * (1 - lips)
        * (1 - ears)
        * np.maximum(np.maximum(beard_area, sideburn), cheek_edge)
        * cheek_edge
    )
    beard *= (
        (1 - scalp)
        * smooth_step(y, 600, 622)
        * smooth_step(z, 55, 68)
        * (1 - 0.4 * smooth_step(chin_patch, 7, 3))
    )
    beard *= smooth_step(y, 690.5, 687.5) + smooth_step(np.abs(x), 30, 45) * smooth_step(y, 687.5, 690.5)
    named = {
        "skin": skin,
        "lips": lips,
        "eyes": eyes,
        "brows": brows,
        "ears": ears,
        "neck": neck,
        "scalp": scalp,
    }
    return {
        k: np.clip(v, 0.0, 1.0) for k, v in (named | {"inner": inner, "beard": np.clip(beard, 0, 1)}).items()
    }
