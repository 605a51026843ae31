"""Textured meshes with morph targets as binary glTF 2.0 (GLB)."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from facefit.export.checks import require_finite, require_triangles
from facefit.export.obj import encode_png
from facefit.model.atomic import write_bytes

METRES = np.float32(0.001)
NEGLIGIBLE = 1e-3  # mm: smaller offsets of a morph target are not stored
_FLOAT, _UNSIGNED = 5126, 5125
_ARRAY, _ELEMENTS = 34962, 34963
_NUMPY = {_FLOAT: "<f4", _UNSIGNED: "<u4"}


class _Buffer:
    """The binary chunk of a GLB file with the views and accessors that describe it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view | ({"target": target} if target else {}))
        self.data += data
        return len(self.views) - 1

    def accessor(
        self, values: np.ndarray, component: int, kind: str, target: int, bounds: bool = False
    ) -> int:
        values = np.ascontiguousarray(values, _NUMPY[component])
        entry = {"componentType": component, "count": len(values), "type": kind}
        entry["bufferView"] = self.view(values.tobytes(), target)
        return self._add(entry, values if bounds else None)

    def sparse(self, offsets: np.ndarray, moved: np.ndarray) -> int:
        """An accessor of len(offsets) vectors that are zero except at the rows `moved`."""
        entry = {"componentType": _FLOAT, "count": len(offsets), "type": "VEC3"}
        if len(moved):
            entry["sparse"] = {
                "count": len(moved),
                "indices": {
                    "bufferView": self.view(moved.astype("<u4").tobytes()),
                    "componentType": _UNSIGNED,
                },
                "values": {"bufferView": self.view(np.ascontiguousarray(offsets[moved], "<f4").tobytes())},
            }
        return self._add(entry, np.where(np.isin(np.arange(len(offsets)), moved)[:, None], offsets, 0))

    def _add(self, entry: dict, bounds: np.ndarray | None) -> int:
        if bounds is not None:
            entry |= {"min": bounds.min(axis=0).tolist(), "max": bounds.max(axis=0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1


def split_seams(
    faces: Int[np.ndarray, "F 3"], uv_faces: Int[np.ndarray, "F 3"]
) -> tuple[np.ndarray, np.ndarray]:
    """One vertex for every pair (position, texture coordinate) in use, as glTF and graphics hardware want it.

    Returns:
        pairs (P, 2): index of the position and of the texture coordinate; triangles (F, 3) that index the
        pairs.
    """
    pairs, corners = np.unique(
        np.stack([np.asarray(faces).ravel(), np.asarray(uv_faces).ravel()], 1), axis=0, return_inverse=True
    )
    return pairs, corners.reshape(-1, 3)


def write_glb(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uv: Float[np.ndarray, "T 2"],
    uv_faces: Int[np.ndarray, "F 3"],
    texture: UInt8[np.ndarray, "H W 3"],
    normals: Float[np.ndarray, "V 3"],
    targets: Float[np.ndarray, "E V 3"] | None = None,
    target_names: Sequence[str] = (),
    weights: Sequence[float] | None = None,
    name: str = "face",
) -> None:
    """Writes one textured mesh, in metres, with its expressions as morph targets.

    Vertices that no triangle uses are left out and vertices on texture seams are doubled, so the order
    differs from `vertices`; every vertex carries its original index in the attribute `_VERTEX`. Morph targets
    move positions (sparse accessors, offsets below a micrometre dropped), not normals: viewers keep the
    neutral normals.

    Args:
        vertices: y up, z out of the face (glTF's own frame), millimetres.
        uv: origin at the lower left, as in OBJ; turned over here, glTF's origin is the upper left.
        texture: sRGB.
        normals: unit vectors.
        targets: offsets at weight one, millimetres.
        target_names: one a target, kept in `extras.targetNames`, where Blender and three.js look for them.
        weights: of the targets when the file opens; zero where left out.

    Raises:
        ValueError: something is not finite, an index points outside, or names do not match the targets.
        InputError: the file cannot be written.
    """
    vertices, uv, normals = (np.asarray(a, np.float32) for a in (vertices, uv, normals))
    faces, uv_faces = np.asarray(faces), np.asarray(uv_faces)
    targets = (
        np.zeros((0, *vertices.shape), np.float32) if targets is None else np.asarray(targets, np.float32)
    )
    for values, what in ((vertices, "vertices"), (uv, "uv"), (normals, "normals"), (targets, "targets")):
        require_finite(values, what)
    require_triangles(faces, len(vertices), "faces")
    require_triangles(uv_faces, len(uv), "uv_faces")
    if not len(faces):
        raise ValueError("faces: there is no triangle to write")
    if len(target_names) != len(targets):
        raise ValueError(f"target_names: {len(target_names)} names for {len(targets)} targets")
    pairs, triangles = split_seams(faces, uv_faces)
    position, texel = pairs.T
    length = np.linalg.norm(normals[position], axis=1, keepdims=True)
    unit = np.where(length > 1e-6, normals[position] / np.maximum(length, 1e-6), np.float32([0, 0, 1]))
    buffer = _Buffer()
    attributes = {
        "POSITION": buffer.accessor(vertices[position] * METRES, _FLOAT, "VEC3", _ARRAY, bounds=True),
        "NORMAL": buffer.accessor(unit, _FLOAT, "VEC3", _ARRAY),
        "TEXCOORD_0": buffer.accessor(uv[texel] * [1, -1] + [0, 1], _FLOAT, "VEC2", _ARRAY),
        # Custom attributes may not be unsigned integers; every index below 2^24 is exact as a float.
        "_VERTEX": buffer.accessor(position, _FLOAT, "SCALAR", _ARRAY),
    }
    primitive = {
        "attributes": attributes,
        "indices": buffer.accessor(triangles.ravel(), _UNSIGNED, "SCALAR", _ELEMENTS),
        "material": 0,
    }
    mesh = {"name": name, "primitives": [primitive]}
    if len(targets):
        primitive["targets"] = [{"POSITION": _target(buffer, target[position])} for target in targets]
        mesh["weights"] = [float(w) for w in weights] if weights is not None else [0.0] * len(targets)
        mesh["extras"] = {"targetNames": list(target_names)}
    image = buffer.view(encode_png(texture))
    document = {
        "asset": {"version": "2.0", "generator": "facefit"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [mesh],
        "materials": [
            {
                "name": "skin",
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.7,
                },
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"name": "albedo", "mimeType": "image/png", "bufferView": image}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    write_bytes(path, _glb(document, bytes(buffer.data)))


def _target(buffer: _Buffer, offsets: np.ndarray) -> int:
    moved = np.flatnonzero(np.abs(offsets).max(axis=1) > NEGLIGIBLE)
    if 16 * len(moved) < 12 * len(offsets):
        return buffer.sparse(offsets * METRES, moved)
    return buffer.accessor(offsets * METRES, _FLOAT, "VEC3", _ARRAY, bounds=True)


def _glb(document: dict, binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    return (
        struct.pack("<III", 0x46546C67, 2, total)
        + struct.pack("<II", len(text), 0x4E4F534A)
        + text
        + struct.pack("<II", len(binary), 0x004E4942)
        + binary
    )
