"""Where the 68 iBUG points lie on the open face mesh, by vertices of MakeHuman's base mesh and geometry."""

from __future__ import annotations

import numpy as np

from facefit.model.proximity import closest_points
from facefit.model.records import SurfacePoints

from .makehuman import BaseMesh
from .topology import HeadMesh

# iBUG point on the midline or on the subject's left -> base vertices whose average it is.
LEFT = {
    27: (132,),
    28: (131,),
    29: (201,),
    30: (5054,),
    33: (317,),
    42: (6850,),
    43: (6838,),
    44: (6784, 6790),
    45: (6805,),
    46: (6825, 6820),
    47: (6831,),
    51: (466,),
    52: (7219,),
    53: (11953, 7207),
    54: (10404,),
    55: (7233,),
    56: (7239, 7245),
    57: (496,),
    62: (474,),
    63: (7227,),
    64: (7192,),
    65: (7236, 7242),
    66: (493,),
}
# iBUG point -> place on the reference head (average young adult MakeHuman head, millimetres), moved to the
# surface.
PLACES = {
    22: (13.0, 751.5, 143.6),
    23: (24.0, 755.8, 142.0),
    24: (35.5, 757.0, 138.0),
    25: (46.5, 754.0, 128.5),
    26: (55.0, 747.3, 116.5),
    34: (5.8, 690.3, 149.0),
    35: (10.8, 690.8, 144.0),
}
# Jaw points 8-16: outward direction whose farthest point is the outline, and where to look: ("x" or "y",
# place).
JAW = {
    8: ((0.0, -1.0, 0.45), ("x", 0.0)),
    9: ((0.2, -1.0, 0.45), ("x", 17.5)),
    10: ((0.4, -0.9, 0.35), ("x", 33.0)),
    11: ((0.6, -0.8, 0.2), ("x", 46.5)),
    12: ((1.0, 0.0, 0.1), ("y", 658.0)),
    13: ((1.0, 0.0, 0.1), ("y", 678.0)),
    14: ((1.0, 0.0, 0.1), ("y", 697.0)),
    15: ((1.0, 0.0, 0.1), ("y", 715.0)),
    16: ((1.0, 0.0, 0.1), ("y", 733.0)),
}
MIRROR = (
    {i: 16 - i for i in range(17)}
    | {i: 43 - i for i in range(17, 27)}
    | {i: i for i in (27, 28, 29, 30, 33, 51, 57, 62, 66)}
    | {
        31: 35,
        32: 34,
        36: 45,
        37: 44,
        38: 43,
        39: 42,
        40: 47,
        41: 46,
        48: 54,
        49: 53,
        50: 52,
        58: 56,
        59: 55,
        60: 64,
    }
    | {61: 63, 67: 65}
)


def ibug_points(
    base: BaseMesh, head: HeadMesh, reference: np.ndarray, faces: np.ndarray, outline: np.ndarray
) -> SurfacePoints:
    """The 68 points as triangles and weights.

    Args:
        reference: fine vertices of the symmetric reference head in MakeHuman's frame, millimetres, (V, 3).
        faces: (F, 3). outline: vertices that may carry jaw points (face skin without ears and neck), (V,)
        bool.
    """
    places = np.full((68, 3), np.nan)
    for i, vertices in LEFT.items():
        places[i] = reference[[head.index(v) for v in vertices]].mean(0)
    for i, place in PLACES.items():
        places[i] = place
    chosen = reference[outline & (reference[:, 2] > 56.0)]
    for i, (direction, (axis, place)) in JAW.items():
        nearness = np.abs(chosen[:, "xy".index(axis)] - place)
        candidates = chosen[nearness < (0.5 if place == 0.0 else 3.5)]
        places[i] = candidates[np.argmax(candidates @ np.array(direction))]
        places[i]["xy".index(axis)] = place
    for i, j in MIRROR.items():
        if np.isnan(places[i, 0]):
            places[i] = places[j] * np.array([-1.0, 1.0, 1.0])
    if np.isnan(places).any():
        raise ValueError("some iBUG points were left without a place")
    found = closest_points(places, reference, faces)
    return SurfacePoints(np.asarray(found.face, np.int32), np.asarray(found.barycentric, np.float32))
