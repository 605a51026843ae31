"""The files a user looks at, each written from a fit by one function: meshes, landmarks, overlay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from facefit import cache
from facefit.color import linear_to_srgb
from facefit.export.gltf import write_glb
from facefit.export.landmarks import write_landmarks, write_landmarks3d
from facefit.export.obj import write_obj, write_png
from facefit.export.overlay import overlay
from facefit.export.ply import write_ply
from facefit.export.texture import bake_texture
from facefit.export.views import PosedView
from facefit.fit.result import Fit
from facefit.model import FaceModel, albedo, surface_points, vertices
from facefit.render import directions_to_camera, shade, to_camera, vertex_normals


def save_neutral(fit: Fit, folder: Path) -> None:
    """neutral.ply, the head without expression, and landmarks3d.json, the 68 points on it; millimetres, model
    frame.
    """
    head = neutral(fit)
    write_ply(
        folder / "neutral.ply",
        head.vertices,
        np.asarray(fit.model.faces),
        comment="facefit, millimetres, y up, z out",
    )
    write_landmarks3d(folder / "landmarks3d.json", head.landmarks68)


def save_landmarks(fit: Fit, place: int, path: Path) -> None:
    """The 68 projected points of one view, original photo pixels, (0, 0) the centre of the first pixel."""
    write_landmarks(path, fit.views[place].landmarks68)


class Neutral(NamedTuple):
    """The subject's head without expression, model frame.

    Attributes:
        vertices: millimetres, (V, 3).
        normals: unit vectors, (V, 3).
        landmarks68: the iBUG points on it, millimetres, (68, 3).
        albedo: linear RGB, (V, 3).
    """

    vertices: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    landmarks68: Float[np.ndarray, "68 3"]
    albedo: Float[np.ndarray, "V 3"]


@cache.remembered  # one program, where a dozen single operations would each be compiled
def _neutral(model: FaceModel, identity, albedo_coefficients):
    points = vertices(model, identity, jnp.zeros(model.expression_basis.shape[0], jnp.float32))
    marks = surface_points(points, model.faces, model.landmarks68)
    return points, vertex_normals(points, model.faces), marks, albedo(model, albedo_coefficients)


def neutral(fit: Fit) -> Neutral:
    """The subject's head without expression."""
    return Neutral(*(np.asarray(values) for values in _neutral(fit.model, fit.identity, fit.albedo)))


@cache.remembered
def _pose(model: FaceModel, identity, albedo_coefficients, expression, rotation, translation, lighting):
    points = vertices(model, identity, expression)
    colors = albedo(model, albedo_coefficients)
    normals = directions_to_camera(vertex_normals(points, model.faces), rotation)
    lit = linear_to_srgb(shade(colors, normals, lighting))
    return to_camera(points, rotation, translation), colors, jnp.round(255 * lit).astype(jnp.uint8)


class Posed(NamedTuple):
    """The mesh of one view with its expression.

    Attributes:
        vertices: in the photograph's camera frame (OpenCV), millimetres, (V, 3).
        albedo: linear RGB, (V, 3).
        lit: colours under the photograph's light, sRGB, (V, 3) uint8.
    """

    vertices: Float[np.ndarray, "V 3"]
    albedo: Float[np.ndarray, "V 3"]
    lit: UInt8[np.ndarray, "V 3"]


def posed(fit: Fit, place: int) -> Posed:
    """View number `place` of a fit, as a mesh in front of its camera."""
    view = fit.views[place]
    found = _pose(
        fit.model, fit.identity, fit.albedo, view.expression, view.rotation, view.translation, view.lighting
    )
    return Posed(*(np.asarray(values) for values in found))


def posed_view(fit: Fit, place: int, pixels: UInt8[np.ndarray, "H W 3"], mesh: Posed) -> PosedView:
    """The photograph with the mesh in front of its camera, as the exporters take it."""
    view = fit.views[place]
    matrix = np.asarray(
        [[view.focal_px, 0, view.center[0]], [0, view.focal_px, view.center[1]], [0, 0, 1]], np.float32
    )
    return PosedView(pixels=pixels, vertices=mesh.vertices, matrix=matrix, lighting=np.asarray(view.lighting))


def save_posed(fit: Fit, place: int, path: Path) -> None:
    """NAME.posed.ply, to be projected with the camera of summary.json."""
    mesh = posed(fit, place)
    comment = "facefit, millimetres, camera frame: x right, y down, z forward"
    write_ply(path, mesh.vertices, np.asarray(fit.model.faces), mesh.lit, comment)


def save_overlay(
    fit: Fit,
    place: int,
    pixels: UInt8[np.ndarray, "H W 3"],
    path: Path,
    detected: Float[np.ndarray, "L 2"] | None = None,
) -> None:
    """NAME.overlay.png: photograph, clay with the fitted landmarks, and the face in its light (see
    `facefit.export.overlay`).

    Args:
        detected: landmarks to be shown besides, photograph pixels, (0.5, 0.5) the first one's centre.
    """
    mesh = posed(fit, place)
    view = posed_view(fit, place, pixels, mesh)
    write_png(path, overlay(fit.model, view, mesh.albedo, fit.views[place].landmarks68, detected))


def texture(fit: Fit, pixels: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "S S 3"]:
    """The subject's albedo as a picture, from those photographs whose pixels are there (see
    `facefit.export.texture`).
    """
    views = [
        posed_view(fit, place, pixels[view.file], posed(fit, place))
        for place, view in enumerate(fit.views)
        if view.file in pixels
    ]
    return bake_texture(fit.model, neutral(fit).albedo, views)


def save_glb(fit: Fit, picture: UInt8[np.ndarray, "S S 3"], path: Path) -> None:
    """mesh.glb: the neutral head with its expressions as morph targets."""
    model, head = fit.model, neutral(fit)
    names = model.expression_names or tuple(f"expression {k}" for k in range(len(model.expression_basis)))
    write_glb(
        path,
        head.vertices,
        np.asarray(model.faces),
        np.asarray(model.uv),
        np.asarray(model.uv_faces),
        picture,
        head.normals,
        np.asarray(model.expression_basis),
        names,
    )


def save_obj(fit: Fit, picture: UInt8[np.ndarray, "S S 3"], path: Path) -> None:
    """mesh.obj, mesh.mtl, mesh.png: the neutral head, millimetres."""
    model = fit.model
    faces, uv, uv_faces = (np.asarray(values) for values in (model.faces, model.uv, model.uv_faces))
    write_obj(path, neutral(fit).vertices, faces, uv, uv_faces, picture)
