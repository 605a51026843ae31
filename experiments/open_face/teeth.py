"""The teeth of MakeHuman's base mesh, hung into the mouth of a head that was built without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .makehuman import DECIMETRE_MM, BaseMesh, MakeHumanFiles, read_target
from .regions import smooth_step
from .topology import HeadMesh

GROUPS = ("helper-upper-teeth", "helper-lower-teeth")
REACH_MM = 12.0  # how far off the walls of the mouth carry a tooth along
COLOR = np.array([0.44, 0.385, 0.30])  # linear RGB
# Where MakeHuman has them, they come through closed lips at the corners of the mouth.
NARROWER, SET_BACK_MM = 0.93, 2.0
# MakeHuman's upper row ends where closed lips meet; people's ends a little below, and a smile shows it down
# to the lower lip.
LOWER_MM = 3.0
BACK_MM = (6.0, 24.0)  # behind the front teeth: from here to there less and less light comes into the mouth
DARKEST = 0.1


@dataclass(frozen=True)
class Teeth:
    """Both rows, T vertices.

    Attributes:
        reference: on the reference head, millimetres, (T, 3).
        follow: weights of the coarse head's vertices whose displacement each follows, (T, C).
        expressions: offsets of each expression, millimetres, (K, T, 3).
        faces, uv, uv_faces: triangles (F, 3) and texture coordinates of their own.
        color: linear RGB, (T, 3).
    """

    reference: np.ndarray
    follow: np.ndarray
    expressions: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    color: np.ndarray


def read_teeth(
    files: MakeHumanFiles,
    base: BaseMesh,
    head: HeadMesh,
    reference: np.ndarray,
    targets: Sequence[str],
) -> Teeth:
    """The teeth as they stand in the reference head.

    Args:
        reference: the reference head's coarse vertices, millimetres, (C, 3).
        targets: files of the expressions.
    """
    chosen = np.isin(base.groups, GROUPS)
    keep, uv_keep = np.unique(base.quads[chosen]), np.unique(base.uv_quads[chosen])
    quads = np.searchsorted(keep, base.quads[chosen])
    uv_quads = np.searchsorted(uv_keep, base.uv_quads[chosen])
    # The reference head is not the base mesh: what carries the teeth along stands elsewhere in it.
    before = base.vertices[head.keep] * DECIMETRE_MM
    place = base.vertices[keep] * DECIMETRE_MM
    squared = ((place[:, None] - before[None]) ** 2).sum(-1)
    follow = np.exp(-0.5 * squared / REACH_MM**2) * (head.mouth_sac | head.is_tongue)
    follow /= follow.sum(1, keepdims=True)
    offsets = [read_target(files, name, len(base.vertices))[keep] * DECIMETRE_MM for name in targets]
    depth = place[:, 2].max() - place[:, 2]
    upper = np.isin(keep, base.quads[base.groups == GROUPS[0]])
    teeth = (place + follow @ (reference - before)) * [NARROWER, 1.0, 1.0] - [0.0, 0.0, SET_BACK_MM]
    teeth[upper, 1] -= LOWER_MM
    return Teeth(
        reference=teeth,
        follow=follow,
        expressions=np.stack(offsets),
        faces=np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]]),
        uv=base.uv[uv_keep],
        uv_faces=np.concatenate([uv_quads[:, :3], uv_quads[:, [0, 2, 3]]]),
        color=COLOR * (1 - (1 - DARKEST) * smooth_step(depth, *BACK_MM))[:, None],
    )
