"""Textured triangle meshes as Wavefront OBJ with a material file and a PNG."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from facefit.export.checks import require_finite, require_triangles
from facefit.model.atomic import write_bytes, write_text


def write_png(path: str | os.PathLike, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes sRGB pixels as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    write_bytes(path, encode_png(pixels))


def encode_png(pixels: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """PNG file of sRGB pixels."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
    if not done:
        raise ValueError(f"pixels: {pixels.shape} {pixels.dtype} cannot be written as PNG")
    return data.tobytes()


def write_obj(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uv: Float[np.ndarray, "T 2"],
    uv_faces: Int[np.ndarray, "F 3"],
    texture: UInt8[np.ndarray, "H W 3"],
) -> None:
    """Writes NAME.obj, NAME.mtl and NAME.png side by side; positions in the unit and frame they come in.

    The three are written picture first and mesh last, so a mesh that is there finds its texture.

    Args:
        path: of the .obj file.
        uv: origin at the lower left, as in OBJ.
        texture: sRGB.

    Raises:
        ValueError: something is not finite, or an index points outside.
        InputError: a file cannot be written.
    """
    path = Path(path)
    vertices, uv = np.asarray(vertices, np.float32), np.asarray(uv, np.float32)
    faces, uv_faces = np.asarray(faces), np.asarray(uv_faces)
    require_finite(vertices, "vertices")
    require_finite(uv, "uv")
    require_triangles(faces, len(vertices), "faces")
    require_triangles(uv_faces, len(uv), "uv_faces")
    picture, material = path.with_suffix(".png"), path.with_suffix(".mtl")
    write_png(picture, texture)
    write_text(material, f"newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {picture.name}\n")
    corners = np.stack([faces, uv_faces], -1).reshape(-1, 6) + 1
    lines = [f"mtllib {material.name}\no {path.stem}"]
    lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in uv.tolist()]
    lines.append("usemtl face")
    lines += [f"f {a}/{i} {b}/{j} {c}/{k}" for a, i, b, j, c, k in corners.tolist()]
    write_text(path, "\n".join(lines) + "\n")
