"""Finds the 468 points of the Face Mesh network on any face model by showing it renderings of the model."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from facefit.color import linear_to_srgb
from facefit.model import FaceModel, SurfacePoints, albedo, vertices
from facefit.model.proximity import closest_points
from facefit.model.registration import vertex_normals
from facefit.photo import face_mesh
from facefit.render.camera import directions_to_camera, project, to_camera
from facefit.render.lighting import shade
from facefit.render.mesh import vertex_normals as differentiable_normals
from facefit.render.renderer import render

SIZE = 320  # side of the renderings, pixels
DISTANCE = 900.0  # of the camera, millimetres: perspective of a portrait
FACE_SHARE = 0.42  # outer eye to chin distance over the picture's side
# Turns of the head shown to the network, degrees: yaw (positive: the face turns to the picture's right),
# pitch.
TURNS = ((0, 0), (0, -14), (0, 12), (-22, 0), (22, 0), (-42, 3), (42, 3))
MIN_FACING = 0.3  # cosine between surface and line of sight below which a hit says little about the place
IDENTITY_SPREAD, ALBEDO_SPREAD = 0.8, 0.7  # of the faces shown, in standard deviations
OUTER_EYES = (36, 45)
# Points on the inner edge of the lower lip, and the one on its outer edge below each; how much of the outer
# point's way with the jaw the inner one goes at least.
LOWER_LIP = {95: 146, 88: 91, 178: 181, 87: 84, 14: 17, 317: 314, 402: 405, 318: 321, 324: 375}
LIP_SHARE = 0.6


@dataclass(frozen=True)
class Sightings:
    """Where the network saw its points on S renderings of known faces.

    Attributes:
        pixels: (S, 468, 2) in the rendering.
        depth: of the points, as the network gives it, in pixels, (S, 468).
        face: triangle under each point, -1 where the point is off the head, (S, 468).
        barycentric: (S, 468, 3).
        facing: cosine between surface normal and line of sight there, (S, 468).
        identity: coefficients of the face shown, (S, I). rotation, translation: of the view, (S, 3).
        interocular: distance of the outer eye corners as a length at the head's depth, pixels, (S,).
        score: the network's certainty that it sees a face, (S,).
    """

    pixels: Float[np.ndarray, "S 468 2"]
    depth: Float[np.ndarray, "S 468"]
    face: np.ndarray
    barycentric: Float[np.ndarray, "S 468 3"]
    facing: Float[np.ndarray, "S 468"]
    identity: np.ndarray
    rotation: Float[np.ndarray, "S 3"]
    translation: Float[np.ndarray, "S 3"]
    interocular: Float[np.ndarray, " S"]
    score: Float[np.ndarray, " S"]


def find_landmarks468(
    model: FaceModel, subjects: int = 24, seed: int = 0
) -> tuple[SurfacePoints, Float[np.ndarray, " 468"]]:
    """The 468 points as triangles and weights, and how far the network scatters about each.

    Random faces of the model are rendered from several sides, the network looks at them, every point is
    traced to the
    surface under it, and the robust median of those places (on the mean face) is put back onto the mean
    face's skin.
    Points near the outline come from the turned views, where they face the camera.

    Args:
        model: `landmarks68` must be right; `landmarks468` and `landmark_sigma468` are not read.
        subjects: faces shown, each in every one of `TURNS`; the first is the mean.

    Returns:
        Points on the skin (neither eyeballs nor mouth cavity), and the standard deviation, along one image
        axis, of
        detected minus projected points as a fraction of the outer eye distance, (468,).

    Raises:
        ValueError: the network recognises no face in most of the renderings.
    """
    seen = sightings(model, subjects, seed)
    points = aggregate(model, seen)
    return points, scatter(model, seen, points)


def sightings(model: FaceModel, subjects: int, seed: int = 0) -> Sightings:
    """Renders the faces and runs the network on them."""
    rng = np.random.default_rng(seed)
    model = jax.tree.map(jnp.asarray, model)
    rows: list[tuple] = []
    for subject in range(subjects):
        spread = 0.0 if subject == 0 else 1.0
        identity = IDENTITY_SPREAD * spread * rng.standard_normal(model.identity_basis.shape[0])
        coefficients = ALBEDO_SPREAD * spread * rng.standard_normal(model.albedo_basis.shape[0])
        for yaw, pitch in TURNS:
            jitter = np.radians(rng.uniform(-4, 4, 3))
            rotation = _axis_angle(
                np.radians(yaw) + jitter[0], np.radians(pitch) + jitter[1], 0.5 * jitter[2]
            )
            light = _random_light(rng)
            background = rng.uniform(0.1, 0.7, 3)
            rows.append(_look(model, identity, coefficients, rotation, light, background))
    fields = [np.stack(field) for field in zip(*rows, strict=True)]
    return Sightings(*fields)


def aggregate(model: FaceModel, seen: Sightings) -> SurfacePoints:
    """The robust median place of every point on the mean face's skin."""
    mean, faces = np.asarray(model.mean, np.float64), np.asarray(model.faces)
    trusted = seen.score > 0.5
    if trusted.sum() < 0.5 * len(trusted):
        raise ValueError(
            f"{model.name}: the network sees a face in only {trusted.sum()} of {len(trusted)} renderings; "
            "check landmarks68, the orientation (y up, z out of the face) and the albedo"
        )
    places = np.einsum("slk,slkc->slc", seen.barycentric, mean[faces[np.maximum(seen.face, 0)]])
    usable = (seen.face >= 0) & trusted[:, None] & near_side(seen)
    # A point that never faces the camera keeps its grazing hits.
    weights = np.where(usable, np.maximum(seen.facing - MIN_FACING, 0.0) ** 2 + 1e-4, 0.0)
    median = np.stack([_geometric_median(places[:, i], weights[:, i]) for i in range(468)])
    eyes, inner = np.asarray(model.regions["eyes"]), np.asarray(model.regions["inner"])
    skin = np.flatnonzero(np.maximum(eyes, inner)[faces].max(1) < 0.5)
    normals = vertex_normals(mean, faces)
    normal = np.einsum("slk,slkc,sl->lc", seen.barycentric, normals[faces[np.maximum(seen.face, 0)]], weights)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    found = closest_points(median, mean, faces[skin], normal, 0.2, 6)
    if (missing := found.face < 0).any():
        plain = closest_points(median[missing], mean, faces[skin])
        for field, value in zip(found, plain, strict=True):
            field[missing] = value
    face, barycentric = skin[found.face].astype(np.int32), found.barycentric.astype(np.float32)
    return on_the_lower_lip(model, SurfacePoints(face, barycentric))


def on_the_lower_lip(model: FaceModel, points: SurfacePoints) -> SurfacePoints:
    """Puts the inner edge of the lower lip where it moves with the jaw.

    On closed lips the network's lower edge falls upon the upper lip half of the time, and would stay there
    when the mouth opens. A model without an expression called jawOpen is left as it is.
    """
    if "jawOpen" not in model.expression_names:
        return points
    opened = np.asarray(model.expression_basis)[model.expression_names.index("jawOpen")]
    faces, mean = np.asarray(model.faces), np.asarray(model.mean, np.float64)
    inside = np.maximum(np.asarray(model.regions["inner"]), np.asarray(model.regions["eyes"]))
    skin = inside[faces].max(1) < 0.5
    drop = -opened[faces][..., 1].max(1)  # of the corner that moves least
    face, barycentric = np.array(points.face), np.array(points.barycentric)
    for inner, outer in LOWER_LIP.items():
        fall = -opened[faces[face[outer]]][..., 1].mean()
        allowed = np.flatnonzero(skin & (drop > LIP_SHARE * fall))
        if fall <= 0 or drop[face[inner]] > LIP_SHARE * fall or not len(allowed):
            continue
        place = barycentric[inner] @ mean[faces[face[inner]]]
        found = closest_points(place[None], mean, faces[allowed])
        face[inner], barycentric[inner] = allowed[found.face[0]], found.barycentric[0]
    return SurfacePoints(face.astype(np.int32), barycentric.astype(np.float32))


def near_side(seen: Sightings) -> np.ndarray:
    """Which points lie on the half of the face that a view shows; the network lays the others onto the
    outline.

    Left and right are taken from the frontal views themselves: the offset of each point from the middle of
    the
    picture's face over half the face's width.

    Returns:
        (S, 468) bool.
    """
    turns = np.stack([cv2.Rodrigues(r.astype(np.float64))[0] for r in seen.rotation])
    away = turns[:, 2, 0]  # depth of the subject's left side in the camera frame
    frontal = np.abs(away) < 0.2
    if not frontal.any():
        raise ValueError("no frontal view among the renderings")
    x = seen.pixels[frontal, :, 0]
    middle, half = 0.5 * (x.max(1) + x.min(1)), 0.5 * (x.max(1) - x.min(1))
    offset = np.median((x - middle[:, None]) / half[:, None], axis=0)
    # Turned by 90 degrees one would see offsets beyond the middle only; at 20 degrees nearly all of the face.
    limit = -1.2 + 2.0 * np.minimum(np.abs(away), 0.6)
    return -np.sign(away)[:, None] * offset[None] > limit[:, None]


def scatter(model: FaceModel, seen: Sightings, points: SurfacePoints) -> Float[np.ndarray, " 468"]:
    """Robust standard deviation of detected minus projected points, as a fraction of the outer eye distance,
    (468,).

    Only views in which the point faces the camera count, since elsewhere the network puts it onto the
    outline.
    """
    corners = np.asarray(model.faces)[np.asarray(points.face)]
    weights = np.asarray(points.barycentric)
    matrix = picture_intrinsics()
    distance = np.full(seen.pixels.shape[:2], np.nan)
    basis = np.asarray(model.identity_basis)[:, corners]
    mean = np.asarray(model.mean)[corners]
    for s in range(len(seen.pixels)):
        if seen.score[s] <= 0.5:
            continue
        triangle = mean + np.tensordot(seen.identity[s], basis, 1)
        places = np.einsum("lk,lkc->lc", weights, triangle)
        camera = to_camera(
            jnp.asarray(places, jnp.float32), jnp.asarray(seen.rotation[s]), jnp.asarray(seen.translation[s])
        )
        projected = np.asarray(project(camera, matrix))
        distance[s] = np.linalg.norm(projected - seen.pixels[s], axis=1) / seen.interocular[s]
    facing = (seen.facing > MIN_FACING) & near_side(seen)
    enough = (facing & np.isfinite(distance)).sum(0) >= 5
    used = np.where(facing | ~enough, distance, np.nan)
    # The median of a Rayleigh distribution is 1.1774 standard deviations of one axis.
    return (np.nanmedian(used, axis=0) / 1.1774).astype(np.float32)


def _look(model, identity, coefficients, rotation, light, background):
    """One rendering shown to the network: fields of `Sightings` for one view."""
    shown = _draw(model, identity, coefficients, rotation, light, background)
    picture, face_index, barycentric, facing, corners, translation = (np.asarray(x) for x in shown)
    pixels = np.rint(np.asarray(linear_to_srgb(np.clip(picture, 0.0, 1.0))) * 255).astype(np.uint8)
    low, high = corners.min(0), corners.max(0)
    square = face_mesh.Square(
        tuple(((low + high) / 2).tolist()), float((high - low).max() * face_mesh.MARGIN)
    )
    for _ in range(2):
        found, score = face_mesh.landmarks(pixels, [square])
        square = face_mesh.square_of(found[0])
    xy = found[0, :, :2]
    column = np.clip(np.floor(xy[:, 0]).astype(int), 0, SIZE - 1)
    row = np.clip(np.floor(xy[:, 1]).astype(int), 0, SIZE - 1)
    outside = ((xy < 0) | (xy >= SIZE)).any(1)
    face = np.where(outside, -1, face_index[row, column])
    across = np.linalg.norm(_landmark_place(model, OUTER_EYES[0]) - _landmark_place(model, OUTER_EYES[1]))
    interocular = across * float(picture_intrinsics()[0, 0]) / DISTANCE
    return (
        xy,
        found[0, :, 2],
        face,
        barycentric[row, column],
        facing[row, column],
        identity,
        rotation,
        translation,
        interocular,
        score[0],
    )


@jax.jit
def _draw(model, identity, coefficients, rotation, light, background):
    points = vertices(
        model, jnp.asarray(identity, jnp.float32), jnp.zeros(model.expression_basis.shape[0], jnp.float32)
    )
    corners3d = _on_surface(points, model.faces, model.landmarks68)
    middle = 0.5 * (corners3d[jnp.asarray(OUTER_EYES)].mean(0) + corners3d[8])
    rotation = jnp.asarray(rotation, jnp.float32)
    translation = jnp.asarray([0.0, 0.0, DISTANCE]) - to_camera(middle, rotation, jnp.zeros(3))
    camera = to_camera(points, rotation, translation)
    normals = directions_to_camera(differentiable_normals(points, model.faces), rotation)
    colors = jnp.clip(
        shade(albedo(model, jnp.asarray(coefficients, jnp.float32)), normals, jnp.asarray(light)), 0.0, 1.0
    )
    sight = -camera / jnp.linalg.norm(camera, axis=1, keepdims=True)
    facing = (normals * sight).sum(1, keepdims=True)
    matrix = jnp.asarray(picture_intrinsics())
    drawn = render(camera, jnp.concatenate([colors, facing], 1), model.faces, matrix, (SIZE, SIZE))
    picture = drawn.image[..., :3] + (1.0 - drawn.coverage[..., None]) * jnp.asarray(background, jnp.float32)
    corners = project(to_camera(corners3d, rotation, translation), matrix)
    fragments = drawn.fragments
    return (
        picture,
        fragments.face_index[..., 0],
        fragments.barycentric[..., 0, :],
        drawn.image[..., 3],
        corners,
        translation,
    )


def picture_intrinsics() -> np.ndarray:
    """Pinhole matrix of the renderings, (3, 3)."""
    # 115 mm from eyes to chin fill FACE_SHARE of the picture.
    focal = FACE_SHARE * SIZE * DISTANCE / 115.0
    return np.array([[focal, 0.0, SIZE / 2], [0.0, focal, SIZE / 2], [0.0, 0.0, 1.0]], np.float32)


def _on_surface(points, faces, surface: SurfacePoints):
    return (points[faces[surface.face]] * surface.barycentric[..., None]).sum(1)


def _landmark_place(model: FaceModel, index: int) -> np.ndarray:
    corners = np.asarray(model.mean)[np.asarray(model.faces)[np.asarray(model.landmarks68.face)[index]]]
    return np.asarray(model.landmarks68.barycentric)[index] @ corners


def _axis_angle(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation of the camera frame: pitch after yaw after roll."""
    turns = [cv2.Rodrigues(np.array(v, np.float64))[0] for v in ((pitch, 0, 0), (0, yaw, 0), (0, 0, roll))]
    return cv2.Rodrigues(turns[0] @ turns[1] @ turns[2])[0][:, 0].astype(np.float32)


def _random_light(rng: np.random.Generator) -> np.ndarray:
    """Mostly frontal light from above, a little warm or cold, (9, 3); rows as in
    `facefit.render.lighting`."""
    light = np.zeros(9)
    light[0] = rng.uniform(0.9, 1.2)
    light[1] = -rng.uniform(0.0, 0.25)  # y down in the camera frame: light from above
    light[2] = -rng.uniform(0.25, 0.45)  # z forward: light from the camera's side
    light[3] = rng.uniform(-0.2, 0.2)
    light[4:] = rng.normal(0.0, 0.04, 5)
    tint = 1.0 + rng.normal(0.0, 0.05, 3)
    return (light[:, None] * tint).astype(np.float32)


def _geometric_median(points: np.ndarray, weights: np.ndarray, rounds: int = 30) -> np.ndarray:
    """Weighted geometric median of (N, 3) points by Weiszfeld's iteration."""
    if weights.sum() <= 0:
        raise ValueError("a point of the network lies off the head in every rendering; check landmarks68")
    place = (points * weights[:, None]).sum(0) / weights.sum()
    for _ in range(rounds):
        pull = weights / np.maximum(np.linalg.norm(points - place, axis=1), 0.05)
        place = (points * pull[:, None]).sum(0) / pull.sum()
    return place
