"""What the renderer draws of a random face: the lit head, maps of what is where, and a shell of hair."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels import antialias, interpolate, rasterize
from jaxtyping import Array, Float
from scipy.spatial import cKDTree

from facefit.model import FaceModel, albedo, vertices
from facefit.model.forward import at_points
from facefit.model.pigment import PigmentBounds
from facefit.render.camera import clip_coordinates, directions_to_camera, to_camera
from facefit.render.lighting import irradiance
from facefit.render.mesh import normalize, vertex_normals
from facefit.synthesis.lights import sphere

# What the vertices belong to, in the order of the drawn channels; `face` is skin and lips of the face proper.
MEMBERSHIPS = ("skin", "face", "brows", "beard", "lips", "inner", "eyes")
_OCCLUDERS = 60  # directions in which it is known what shadows what
_SHADOW_SIZE = 192


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """A model made ready for drawing random faces of it: what depends on the model alone.

    Attributes:
        marks: the model restricted to its iBUG points.
        pigments: what the colours of skin, hair and eyes keep to.
        hair_reach: how far a vertex is inside the scalp region (outside: negative), millimetres, (V,).
        arrays: for `draw`, on the device: `memberships` (V, 7) in the order of MEMBERSHIPS, where `face` is
            what a photometric loss looks at; `sky`, directions in the model frame (D, 3); `open_sky`, whether
            the mean head's vertices see the sky there (D, V), in [0, 1]; `normals` of the mean head (V, 3);
            `shell_faces`, the triangles that may carry hair (S, 3).
    """

    model: FaceModel
    marks: FaceModel
    pigments: PigmentBounds
    hair_reach: Float[np.ndarray, " V"]
    arrays: dict[str, Array]


def prepare_head(model: FaceModel) -> Head:
    """Looks at the mean head once: shadows, regions, where hair grows. Deterministic."""
    mean, faces = np.asarray(model.mean), np.asarray(model.faces)
    zero = np.zeros(len(mean), np.float32)
    names = ("skin", "lips", "eyes", "brows", "ears", "neck", "scalp", "inner", "beard")
    region = {name: np.asarray(model.regions.get(name, zero)) for name in names}
    face = np.clip(region["skin"] + region["lips"], 0, 1) * (1 - region["ears"]) * (1 - region["neck"])
    columns = (region["skin"], face, *(region[name] for name in MEMBERSHIPS[2:]))
    scalp = region["scalp"] > 0.5
    reach = np.full(len(mean), -1e3, np.float32)
    if scalp.any():
        reach = cKDTree(mean[~scalp]).query(mean)[0] - cKDTree(mean[scalp]).query(mean)[0]
    # Hair hangs over forehead, temples and cheeks, but not over the middle of the face.
    middle = (np.abs(mean[:, 0]) < 30) & (mean[:, 1] < 25) & (mean[:, 2] > 60)
    hairy = (region["inner"] + region["eyes"] + region["lips"] < 0.5) & ~middle
    sky = sphere(_OCCLUDERS).astype(np.float32)
    arrays = {
        "memberships": np.stack(columns, -1).astype(np.float32),
        "open_sky": _open_sky(mean, faces, sky),
        "sky": sky,
        "shell_faces": faces[hairy[faces].all(1)],
        "normals": vertex_normals(model.mean, model.faces),
    }
    marks = at_points(model, model.landmarks68)
    arrays = jax.tree.map(jnp.asarray, arrays)
    return Head(model, marks, PigmentBounds.of(model), reach.astype(np.float32), arrays)


def _open_sky(mean: np.ndarray, faces: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Parallel projections of the head from every direction: which vertices are in sight, softly."""
    reach = float(np.linalg.norm(mean - mean.mean(0), axis=1).max() * 1.05)

    @jax.jit
    def depths(points):
        clip = jnp.concatenate([points / reach, jnp.ones_like(points[:, :1])], 1)
        drawn = rasterize(clip, jnp.asarray(faces), (_SHADOW_SIZE, _SHADOW_SIZE))
        return jnp.where(drawn.face_index[..., 0] >= 0, drawn.depth[..., 0], 9.0)

    seen = []
    for direction in sky:
        side = np.cross(direction, [0.0, 1.0, 0.1])
        side /= np.linalg.norm(side)
        frame = np.stack([side, np.cross(direction, side), -direction])
        points = ((mean - mean.mean(0)) @ frame.T).astype(np.float32)
        depth = np.asarray(depths(points))
        pixel = (points[:, :2] / reach + 1) / 2 * _SHADOW_SIZE
        column, row = np.clip(pixel.astype(int), 1, _SHADOW_SIZE - 2).T
        near = np.stack([depth[row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
        seen.append((points[None, :, 2] - 4.0 < near * reach).mean(0))
    return np.stack(seen).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("size",))
def draw(
    model: FaceModel,
    head: dict[str, Array],
    truth: dict[str, Array],
    hair: dict[str, Array],
    matrix: Float[Array, "3 3"],
    size: int,
) -> dict[str, Array]:
    """One face, and the shell its hair grows on.

    Args:
        head: `Head.arrays`.
        truth: identity, expression, albedo, rotation, translation and lighting as in `Parameters`; the lamps'
            `lamp_directions` (K, 3) and `lamp_strengths` (K,) and the `ambient` irradiance, for shadows of
            strength `shadow` in [0, 1] and highlights of strength `gloss` and exponent `gloss_power`.
        hair: of every vertex, `thickness` and `field` (distance inside the hair's edge), millimetres, (V,).
        matrix: pinhole matrix. size: S, pixels.

    Returns:
        face: (S, S, 20): lit colour (3), linear RGB; highlight (3); place on the mean head (3), millimetres;
            irradiance (3); MEMBERSHIPS (7); coverage. All but the coverage are black where the face is not.
        hair: (S, S, 7): place on the mean head (3), field, irradiance (3).
        nearer: whether the shell is in sight, (S, S) bool.
    """
    points = vertices(model, truth["identity"], truth["expression"])
    normals = directions_to_camera(vertex_normals(points, model.faces), truth["rotation"])
    placed = to_camera(points, truth["rotation"], truth["translation"])
    lit = irradiance(normals, truth["lighting"])
    # Shadows: the share of the light that reaches a vertex of the mean head past the rest of the head.
    lamps = truth["lamp_directions"]
    to_model = jnp.stack([directions_to_camera(jnp.eye(3)[k], truth["rotation"]) for k in range(3)])
    toward = jax.nn.softmax(14.0 * (lamps @ to_model.T) @ head["sky"].T, axis=-1)
    facing = jnp.maximum(normals @ lamps.T, 0.0) * truth["lamp_strengths"]
    mean_facing = jnp.maximum(head["normals"] @ head["sky"].T, 0.0)
    open_sky = jnp.sum(mean_facing * head["open_sky"].T, -1) / jnp.maximum(jnp.sum(mean_facing, -1), 1e-3)
    reached = jnp.sum(facing * (toward @ head["open_sky"]).T, -1) + truth["ambient"] * open_sky
    shadow = (reached + 1e-3) / (jnp.sum(facing, -1) + truth["ambient"] + 1e-3)
    lit = jnp.maximum(lit, 0.0) * (1.0 - truth["shadow"] * (1.0 - shadow))[:, None]
    colors = jnp.clip(albedo(model, truth["albedo"]), 0.006, 1.0) * lit
    view = -normalize(placed)
    half = normalize(view[:, None] + lamps[None])
    eye = head["memberships"][:, 6]
    power = jnp.where(eye > 0.5, 150.0, truth["gloss_power"])
    strength = jnp.where(eye > 0.5, 3.0, truth["gloss"])
    mirrored = jnp.maximum(jnp.einsum("vc,vkc->vk", normals, half), 0.0) ** power[:, None]
    mirrored = jnp.sum(mirrored * jnp.minimum(facing, 1.0) * (toward @ head["open_sky"]).T, -1) * strength
    tint = truth["lighting"][0] / jnp.maximum(truth["lighting"][0].mean(), 1e-3)
    channels = [colors, mirrored[:, None] * tint, model.mean, lit, head["memberships"]]
    channels.append(jnp.ones_like(lit[:, :1]))

    clip = clip_coordinates(placed, matrix, (size, size))
    fragments = rasterize(clip, model.faces, (size, size))
    drawn = interpolate(jnp.concatenate(channels, -1), model.faces, fragments)[:, :, 0]
    drawn = antialias(drawn, clip, model.faces, fragments)

    # The shell of hair: the mean head's hairy part blown up around the middle of the head.
    offset = points - model.mean
    center = jnp.stack(
        [0.0 * offset[:, 0], jnp.minimum(model.mean[:, 1], 40.0), jnp.full_like(offset[:, 0], -15.0)], -1
    )
    out = normalize(model.mean - center)
    shell = points + out * hair["thickness"][:, None]
    shell_normals = directions_to_camera(normalize(out + 0.3 * head["normals"]), truth["rotation"])
    hair_lit = jnp.maximum(irradiance(shell_normals, truth["lighting"]), 0.02)
    shell_clip = clip_coordinates(
        to_camera(shell, truth["rotation"], truth["translation"]), matrix, (size, size)
    )
    over = rasterize(shell_clip, head["shell_faces"], (size, size))
    shown = interpolate(
        jnp.concatenate([model.mean, hair["field"][:, None], hair_lit], -1), head["shell_faces"], over
    )[:, :, 0]
    nearer = (over.face_index[..., 0] >= 0) & (
        (fragments.face_index[..., 0] < 0) | (over.depth[..., 0] < fragments.depth[..., 0])
    )
    return {"face": drawn, "hair": shown, "nearer": nearer}


@jax.jit
def landmarks_of(
    marks: FaceModel, identity: Float[Array, " I"], expression: Float[Array, " E"]
) -> Float[Array, "68 3"]:
    """The iBUG points of a face, model frame, millimetres. `marks` is that of `Head`."""
    return vertices(marks, identity, expression)
