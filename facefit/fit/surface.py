"""The parts of a model that fitting looks at, gathered once per model on the host."""

from __future__ import annotations

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from facefit.energy.regions import photometric_weight, region, visible
from facefit.model import FaceModel, SurfacePoints, at_points, crop
from facefit.model.derived import kept
from facefit.model.landmark_errors import LandmarkErrors, landmark_errors

# Face Mesh points on the border of the network's face: the outline of the cheeks and the chin in most poses.
OVAL468 = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
JAW68 = tuple(range(17))
_CANDIDATES = 900
# Blendshapes that mean something only with another one: alone, mouthClose lifts the lips to the nose.
_UNFITTED = ("mouthClose",)
# Expressions that go all the way more often than the others: their prior is this much wider.
_WIDER = {"eyeBlinkLeft": 2.8, "eyeBlinkRight": 2.8, "jawOpen": 1.6}
# Face Mesh points above and below one another: the lids of the right and of the left eye, and the inner lips.
LIDS = ((159, 145), (160, 144), (158, 153), (386, 374), (385, 380), (387, 373))
LIPS = ((13, 14), (82, 87), (312, 317))
APERTURES = LIDS + LIPS


@struct.dataclass
class PointBasis:
    """n points of the model that move linearly with identity and expression coefficients, in this order, C in
    all.

    The points come first: those of a pixel's triangle are then gathered as one stretch of memory each.
    """

    mean: Float[Array, "n 3"]
    basis: Float[Array, "n 3 C"]


def select(points: PointBasis, index: Int[Array, " n"]) -> PointBasis:
    """Some of the points."""
    return PointBasis(points.mean[index], points.basis[index])


@struct.dataclass
class FittingSurface:
    """A model cut down to what a photograph can show.

    Attributes:
        surface: the drawn vertices and triangles, without the mouth's inside and hidden shells.
        points: how its vertices move, (V points).
        albedo_basis: of the vertices, components last, (V, 3, A).
        landmarks: how the 468 and then the 68 landmarks move, (536 points).
        landmark_corner: vertices of `surface` around each landmark, (536, 3), for its normal.
        expression_spread: each expression's standard deviation beside that of the others, (E,).
        errors: of the dense landmarks.
        scatter468: how far each strays on this model, outer-eye distances, (468,).
        outline: vertices of `surface` that may form the face's outline, (C,).
        photometric: how much a vertex's colour counts: 1 on skin, less where the albedo prior knows little,
            (V,).
    """

    surface: FaceModel
    points: PointBasis
    albedo_basis: Float[Array, "V 3 A"]
    landmarks: PointBasis
    landmark_corner: Int[Array, "L 3"]
    expression_spread: Float[Array, " E"]
    errors: LandmarkErrors
    scatter468: Float[Array, " 468"]
    outline: Int[Array, " C"]
    photometric: Float[Array, " V"]


def _points(model: FaceModel) -> PointBasis:
    """The vertices of a model as points, on the host."""
    fitted = np.array([name not in _UNFITTED for name in model.expression_names], np.float32)
    expression = np.asarray(model.expression_basis)
    if len(fitted) == len(expression):
        expression = expression * fitted[:, None, None]
    both = np.concatenate([np.asarray(model.identity_basis), expression])
    return PointBasis(np.asarray(model.mean), np.ascontiguousarray(np.moveaxis(both, 0, -1)))


def _expression_spread(model: FaceModel) -> np.ndarray:
    spread = np.ones(model.expression_basis.shape[0], np.float32)
    for place, name in enumerate(model.expression_names[: len(spread)]):
        spread[place] = _WIDER.get(name, 1.0)
    return spread


def _both(model: FaceModel) -> SurfacePoints:
    """The 468 and then the 68 landmarks."""
    pairs = zip(jax.tree.leaves(model.landmarks468), jax.tree.leaves(model.landmarks68), strict=True)
    return SurfacePoints(
        *(np.concatenate([np.asarray(dense), np.asarray(sparse)]) for dense, sparse in pairs)
    )


@kept
def fitting_surface(model: FaceModel) -> FittingSurface:
    """Selects what fitting needs of a model. On the host: a dozen operations used once would each be
    compiled."""
    part = crop(model, visible(model))
    # On the uncut model: some lie on triangles that hide inside the mouth or behind the eyelids.
    landmarks = _points(at_points(model, _both(model)))
    if part.landmark_offset468 is not None:
        offset = np.zeros_like(landmarks.mean)
        offset[:468] = part.landmark_offset468
        landmarks = landmarks.replace(mean=landmarks.mean + offset)
    outside = np.max([region(part, name) for name in ("ears", "neck", "scalp", "eyes", "lips")], axis=0)
    used = np.zeros(part.mean.shape[0], bool)
    used[np.asarray(part.faces).ravel()] = True
    face = np.flatnonzero((region(part, "skin") > 0.5) & (outside < 0.5) & used)
    outline = face[np.unique(np.linspace(0, len(face) - 1, min(_CANDIDATES, len(face))).astype(int))]
    return jax.device_put(
        FittingSurface(
            surface=part,
            points=_points(part),
            albedo_basis=np.ascontiguousarray(np.moveaxis(np.asarray(part.albedo_basis), 0, -1)),
            landmarks=landmarks,
            landmark_corner=np.asarray(part.faces)[_both(part).face],
            expression_spread=_expression_spread(model),
            errors=landmark_errors(),
            scatter468=part.landmark_sigma468,
            outline=outline.astype(np.int32),
            photometric=photometric_weight(part).astype(np.float32),
        )
    )
