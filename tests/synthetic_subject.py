"""Photographs of a person who is known exactly: drawn from a model, with exact landmarks, for tests of
fitting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from facefit.color import linear_to_srgb
from facefit.fit.observation import Observation, face_extent
from facefit.fit.state import Shared, View
from facefit.model import FaceModel, Parameters, surface_points, vertices
from facefit.model.landmark_errors import landmark_errors
from facefit.model.records import ViewParameters
from facefit.photo import Photograph
from facefit.render import intrinsics, project, render_face, to_camera

SIZE = (300, 300)
FOCAL = 640.0
TURNS = ((0.05, 0.1, -0.05), (0.0, -0.55, 0.1), (-0.15, 0.5, 0.0))  # of the three views, radians


@dataclasses.dataclass(frozen=True)
class Subject:
    """The truth and the photographs that show it."""

    parameters: Parameters
    photographs: tuple[Photograph, ...]
    landmarks68: np.ndarray  # (N, 68, 2), pixels


@jax.jit
def _draw(model: FaceModel, parameters: Parameters):
    """One view: sRGB picture with coverage, and the landmarks with their depths as the network would give
    them.
    """
    view = parameters.views
    matrix = intrinsics(FOCAL, jnp.float32([SIZE[1] / 2, SIZE[0] / 2]))
    drawn = render_face(model, parameters, matrix, SIZE)
    # A background of grey stripes, unlike skin.
    stripes = 0.25 + 0.1 * jnp.sin(jnp.arange(SIZE[1]) / 5.0)
    image = drawn.image + (1 - drawn.coverage)[..., None] * stripes[None, :, None] * jnp.float32(
        [0.6, 0.9, 1.0]
    )
    points = vertices(model, parameters.identity, view.expression)

    def seen(landmarks, offset=None):
        place = surface_points(points, model.faces, landmarks) + (0 if offset is None else offset)
        placed = to_camera(place, view.rotation, view.translation)
        depth = (placed[:, 2:] - view.translation[2]) * FOCAL / view.translation[2]
        return jnp.concatenate([project(placed, matrix), depth], -1)

    dense = seen(model.landmarks468, model.landmark_offset468)  # where the network sees them
    return linear_to_srgb(image), drawn.coverage, dense, seen(model.landmarks68)


def random_subject(
    model: FaceModel, views: int, seed: int = 0, sparse: bool = False, skin_tone: float = 1.0
) -> Subject:
    """A person drawn from the model's prior, photographed from different sides with different expressions and
    light.

    Args:
        sparse: the photographs carry the 68 landmarks too, as if a user had given them.
        skin_tone: albedo beside the mean albedo, as nearly as the model has it.
    """
    random = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return jnp.asarray(random.normal(0, scale, shape), jnp.float32)

    identity = normal(model.identity_basis.shape[0])
    albedo = normal(model.albedo_basis.shape[0], scale=0.5)
    if skin_tone != 1.0:
        basis = np.asarray(model.albedo_basis).reshape(len(albedo), -1).T
        wanted = (skin_tone - 1.0) * np.asarray(model.albedo_mean).ravel()
        ridge = np.linalg.solve(basis.T @ basis + 10.0 * np.eye(len(albedo)), basis.T @ wanted)
        albedo = jnp.asarray(ridge, jnp.float32)
    photographs, truth, landmarks = [], [], []
    for n in range(views):
        weights = random.uniform(0, 0.4, model.expression_basis.shape[0])
        weights *= random.random(len(weights)) < 0.1  # a few units of the face at a time
        light = random.normal(0, 0.18, (9, 1)) + random.normal(0, 0.02, (9, 3))
        light[0] = random.uniform(0.8, 1.1) + random.normal(0, 0.03, 3)
        view = ViewParameters(
            expression=jnp.asarray(weights, jnp.float32),
            rotation=jnp.asarray(TURNS[n % 3], jnp.float32) + normal(3, scale=0.05),
            translation=jnp.asarray([0.0, 20.0, 750.0], jnp.float32) + normal(3, scale=10.0),
            log_focal=jnp.float32(np.log(FOCAL)),
            lighting=jnp.asarray(light, jnp.float32),
        )
        image, coverage, dense, points68 = jax.tree.map(
            np.array, _draw(model, Parameters(identity, albedo, view))
        )
        rows, columns = np.nonzero(coverage > 0.5)
        photographs.append(
            Photograph(
                path=f"view{n}.png",
                pixels=np.round(np.clip(image, 0, 1) * 255).astype(np.uint8),
                exif_focal_px=FOCAL,
                box=(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1),
                landmarks468=dense,
                landmarks68=points68[:, :2] if sparse else None,
                landmarks68_source="user" if sparse else None,
                face_score=1.0,
            )
        )
        # The network's depths are off by the same everywhere, in units of the face's size.
        _, unit = face_extent(photographs[-1])
        dense[:, 2] += np.asarray(landmark_errors().depth_bias) * unit
        truth.append(view)
        landmarks.append(points68[:, :2])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *truth)
    return Subject(Parameters(identity, albedo, stacked), tuple(photographs), np.stack(landmarks))


def in_solver_terms(
    known: Subject, observations: Sequence[Observation], shared: Shared, views: Sequence[View]
) -> tuple[Shared, tuple[View, ...]]:
    """The truth in the solver's own parameters; `shared` and `views` are any of the right shapes."""

    def one(n: int, view: View, seen: Observation) -> View:
        truth = jax.tree.map(lambda leaf: leaf[n], known.parameters.views)
        focal, depth = FOCAL / seen.photo_px, truth.translation[2]
        pose = view.pose.replace(
            rotation=truth.rotation,
            place=seen.principal + (focal / depth) * truth.translation[:2],
            log_scale=jnp.log(focal / depth),
        )
        return view.replace(expression=truth.expression, pose=pose, lighting=truth.lighting)

    shared = shared.replace(
        identity=known.parameters.identity,
        albedo=known.parameters.albedo,
        log_focal=jnp.full_like(shared.log_focal, np.log(FOCAL)),
    )
    pairs = zip(views, observations, strict=True)
    return shared, tuple(one(n, *pair) for n, pair in enumerate(pairs))
