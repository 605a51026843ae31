"""Triangle meshes as binary PLY."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Float, Int, UInt8

from facefit.export.checks import require_finite, require_triangles
from facefit.model.atomic import write_bytes


def write_ply(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    colors: UInt8[np.ndarray, "V 3"] | None = None,
    comment: str = "",
) -> None:
    """Writes a binary little-endian PLY; positions are float32 in the unit and frame they come in.

    Args:
        colors: sRGB of every vertex.
        comment: one line for the header; line breaks become spaces.

    Raises:
        ValueError: a vertex is not finite, or a face points outside the vertices.
        InputError: the file cannot be written.
    """
    vertices = np.asarray(vertices, np.float32)
    faces = np.asarray(faces, np.int32)
    require_finite(vertices, "vertices")
    require_triangles(faces, len(vertices), "faces")
    fields = [("position", "<f4", 3)] + ([("color", "u1", 3)] if colors is not None else [])
    vertex = np.zeros(len(vertices), fields)
    vertex["position"] = vertices
    if colors is not None:
        vertex["color"] = colors
    face = np.zeros(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    face["count"], face["corners"] = 3, faces
    header = ["ply", "format binary_little_endian 1.0"]
    if comment:
        header.append("comment " + " ".join(comment.split()))
    header += [f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz")]
    if colors is not None:
        header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    write_bytes(path, "\n".join(header).encode("ascii", "replace") + vertex.tobytes() + face.tobytes())
