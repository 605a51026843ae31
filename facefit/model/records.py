"""The records of a 3D morphable model: what a model holds and which parameters bring it to life."""

from __future__ import annotations

import jax
from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class SurfacePoints:
    """Points fixed to a mesh: L triangles and the barycentric weights of one point in each.

    Attributes:
        face: index into `FaceModel.faces`, (L,).
        barycentric: weights of the triangle's three corners, (L, 3), each row sums to one.
    """

    face: Int[Array, " L"]
    barycentric: Float[Array, "L 3"]


@struct.dataclass
class FaceModel:
    """A 3D morphable model, in millimetres, x to the subject's left, y up, z out of the face, origin between
    the ears.

    vertices(identity, expression) = mean + identity . identity_basis + expression . expression_basis
    albedo(coefficients) = albedo_mean + coefficients . albedo_basis          (linear RGB)

    Identity and albedo coefficients are in standard deviations (their prior is N(0, 1)). Expression weights
    are in [0, 1] when `expression_is_blendshape`, else in standard deviations.

    Attributes:
        mean: vertices of the mean neutral head, (V, 3).
        identity_basis: offset of one standard deviation, (I, V, 3).
        expression_basis: offset of a full expression (or one standard deviation), (E, V, 3).
        faces: triangles, counter-clockwise from outside, (F, 3).
        uv: texture coordinates in [0, 1], origin at the lower left as in OBJ, (T, 2).
        uv_faces: index into `uv` of every triangle corner, (F, 3).
        albedo_mean: linear RGB, (V, 3).
        albedo_basis: offset of one standard deviation, linear RGB, (A, V, 3).
        landmarks68: the iBUG points. Jaw points 0-16 as on a frontal face.
        landmarks468: the points of the Face Mesh network.
        landmark_sigma468: how far the network's points scatter about `landmarks468`, as a fraction of the
            inter-ocular distance, (468,): measured on renderings of the model, used to weigh the points.
        landmark_offset468: from the surface points to where the network sees them on average, model frame,
            millimetres, (468, 3): the mean over many people of what the network finds, less the mean face.
            None where it was not measured (see `experiments/calibrate_landmarks.py`).
        regions: membership in [0, 1] of every vertex, (V,) each; at least skin, lips, eyes, brows, ears,
            neck, scalp, inner (mouth cavity, eye sockets: never seen from outside on a closed face).
        name, expression_names, identity_names, expression_is_blendshape, licence: static facts.
    """

    mean: Float[Array, "V 3"]
    identity_basis: Float[Array, "I V 3"]
    expression_basis: Float[Array, "E V 3"]
    faces: Int[Array, "F 3"]
    uv: Float[Array, "T 2"]
    uv_faces: Int[Array, "F 3"]
    albedo_mean: Float[Array, "V 3"]
    albedo_basis: Float[Array, "A V 3"]
    landmarks68: SurfacePoints
    landmarks468: SurfacePoints
    landmark_sigma468: Float[Array, " 468"]
    regions: dict[str, Float[Array, " V"]]
    landmark_offset468: Float[Array, "468 3"] | None = None
    name: str = struct.field(pytree_node=False, default="")
    expression_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    expression_is_blendshape: bool = struct.field(pytree_node=False, default=True)
    licence: str = struct.field(pytree_node=False, default="")


@struct.dataclass
class ViewParameters:
    """What differs between photographs of one subject.

    Attributes:
        expression: (E,).
        rotation: axis-angle from model to camera frame, radians, applied after the half turn about x that
            takes the model frame (y up, z out) to the OpenCV camera frame (y down, z forward): zero is a
            frontal face, (3,).
        translation: of the model's origin in the camera frame, millimetres, (3,).
        log_focal: natural logarithm of the focal length in photograph pixels, ().
        lighting: second-order spherical harmonics of the incoming light, rows in the order of
            `facefit.render.lighting`, linear RGB, camera frame, (9, 3).
    """

    expression: Float[Array, " E"]
    rotation: Float[Array, "3"]
    translation: Float[Array, "3"]
    log_focal: Float[Array, ""]
    lighting: Float[Array, "9 3"]


@struct.dataclass
class Parameters:
    """All parameters of one subject seen in N photographs; every leaf of `views` has a leading axis N."""

    identity: Float[Array, " I"]
    albedo: Float[Array, " A"]
    views: ViewParameters


def vertex_count(model: FaceModel) -> int:
    """Number of vertices V."""
    return model.mean.shape[0]


def mean_parameters(model: FaceModel, views: int) -> Parameters:
    """The mean face, neutral, frontal, one metre away, in white ambient light of unit irradiance: where
    fitting starts.

    Returns:
        Parameters with `views` views, focal length 1000 px.
    """
    import jax.numpy as jnp

    ambient = jnp.zeros((9, 3), jnp.float32).at[0].set(1.0)
    one = ViewParameters(
        expression=jnp.zeros((model.expression_basis.shape[0],), jnp.float32),
        rotation=jnp.zeros((3,), jnp.float32),
        translation=jnp.asarray([0.0, 0.0, 1000.0], jnp.float32),
        log_focal=jnp.asarray(6.907755, jnp.float32),
        lighting=ambient,
    )
    stacked = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], views, axis=0), one)
    return Parameters(
        identity=jnp.zeros((model.identity_basis.shape[0],), jnp.float32),
        albedo=jnp.zeros((model.albedo_basis.shape[0],), jnp.float32),
        views=stacked,
    )
