"""Reader for ICT-FaceKit (Li et al. 2020, "Learning Formation of Physically-Based Face Attributes"; MIT
licence).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from facefit.errors import InputError
from facefit.model.npz import as_jax, read_arrays, validate
from facefit.model.records import FaceModel, SurfacePoints

VERTICES = 26719
FACES = 26384
MAX_OBJ_BYTES = 32 << 20  # the files of the model have 2.6 MB
CENTIMETRE = np.float32(10.0)
EARS = np.float32([0.0, 10.0, 22.0])  # midpoint of the tragi in the file's frame, mm: the origin of ours

# Vertex ranges of the parts, as the model's own documentation gives them (ends excluded).
FACE = slice(0, 9409)
NARROW_FACE = slice(0, 6706)
HEAD = slice(9409, 11248)
SOCKETS = slice(11248, 14062)
GUMS = slice(14062, 17039)
TEETH = slice(17039, 21451)
EYEBALLS = slice(21451, 24591)
SHELLS = slice(
    24591, VERTICES
)  # lacrimal fluid, eye blend, eye occlusion, eyelashes: transparent in a film renderer

# idx_to_landmark_verts of vertex_indices.json, except the chin points 7-9: the table's lie on the front of
# the chin, 4 mm above its lower edge, where iBUG's annotators (and dlib, on renderings of this model) put
# them. The alternative jaw lines that go round lie 8 to 17% of the eye distance too low on the cheek; the
# table's follow dlib's to 4 to 8%.
LANDMARKS = (
    *(1225, 1888, 1052, 367, 1719, 1722, 2199, 1445, 969, 3659, 4390, 3927, 3924, 2608, 3272, 4088, 3443),
    *(
        268,
        493,
        1914,
        2044,
        1401,
        3615,
        4240,
        4114,
        2734,
        2509,
        978,
        4527,
        4942,
        4857,
        1140,
        2075,
        1147,
        4269,
        3360,
    ),
    *(1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732),
    *(5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841),
    *(5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966),
)

# The file has one texture tile a material (UDIM), the eyes all on the first. One atlas:
# lower left corner and side of each part.
TILES = {
    "M_Face": (0.0, 0.3, 0.7),
    "M_BackHead": (0.7, 0.7, 0.3),
    "M_GumsTongue": (0.7, 0.5, 0.2),
    "M_Teeth": (0.7, 0.3, 0.2),
    "M_ScleraLeft": (0.0, 0.05, 0.2),
    "M_IrisLeft": (0.2, 0.05, 0.2),
    "M_ScleraRight": (0.4, 0.05, 0.2),
    "M_IrisRight": (0.6, 0.05, 0.2),
}

# Where the Face Mesh network sees its points on renderings of this model: experiments/build_ict_landmarks.py.
DENSE = Path(__file__).with_name("ict_landmarks468.npz")


def read_ict(path: str | Path) -> FaceModel:
    """Reads ICT-FaceKit light from its OBJ directory (`FaceXModel`) or from the compact .npz.

    The .npz (fields neutral, ids, ex, names) has no triangles: they come from `generic_neutral_mesh.obj`
    beside it or in `FaceXModel/` beside it. Of an OBJ directory every `identityNNN.obj` and expression that
    is there is read.

    All 26,719 vertices keep their place; `faces` holds only what is drawn: the transparent shells of the eyes
    have no triangles and form the region "hidden"; the teeth, part of "inner", are the region "teeth" as
    well. Expressions have ARKit's names (`_L` becomes `Left`); browInnerUp and cheekPuff, single in ARKit,
    stay separate for the two sides.

    The model has no albedo: it gets a plain skin with two tone components. `transfer.complete` takes a better
    prior over from another model. The dense landmarks come from a table of our own.

    Raises:
        InputError: a file is missing, damaged or not of this model; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        compact = sorted(p for p in path.glob("*.npz") if p.name.startswith("ict"))
        if compact and not (path / "generic_neutral_mesh.obj").is_file():
            return read_ict(compact[0])
        folder = path if (path / "generic_neutral_mesh.obj").is_file() else path / "FaceXModel"
        if not (folder / "generic_neutral_mesh.obj").is_file():
            raise InputError(
                f"{path}: no generic_neutral_mesh.obj here. Give the FaceXModel folder of ICT-FaceKit."
            )
        template = _read_template(folder / "generic_neutral_mesh.obj")
        neutral = template["vertices"]
        modes = sorted(p for p in folder.glob("identity*.obj") if re.fullmatch(r"identity\d{3}", p.stem))
        shapes = sorted(
            p for p in folder.glob("*.obj") if p not in modes and p.stem != "generic_neutral_mesh"
        )
        if not modes:
            raise InputError(
                f"{folder}: no identity000.obj ... identity099.obj. Fetch the whole FaceXModel folder."
            )
        identity = np.stack([_read_vertices(p) - neutral for p in modes])
        expression = (
            np.stack([_read_vertices(p) - neutral for p in shapes]) if shapes else np.zeros((0, VERTICES, 3))
        )
        names = [p.stem for p in shapes]
    else:
        arrays = read_arrays(path)
        neutral, identity, expression, names = _check_compact(arrays, path)
        template = _read_template(_find_template(path))
        difference = np.abs(template["vertices"] - neutral).max()
        if difference > 0.01:
            raise InputError(
                f"{path}: neutral differs by {difference:.2f} cm from generic_neutral_mesh.obj beside it. "
                "Put the mesh of the same release there."
            )
    return _build(template, neutral, identity, expression, names, str(path))


def is_ict(path: Path) -> bool:
    """Whether `path` is a folder or an .npz that `read_ict` is meant for (only names are looked at)."""
    if path.is_dir():
        known = ("generic_neutral_mesh.obj", "FaceXModel/generic_neutral_mesh.obj")
        return any((path / name).is_file() for name in known) or any(path.glob("ict*.npz"))
    return path.suffix.lower() == ".npz" and {"neutral", "ids", "ex"} <= set(_names(path))


def _names(path: Path) -> list[str]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def arkit_name(name: str) -> str:
    """ARKit's name of an expression: `eyeBlink_L` is eyeBlinkLeft, `PupilDilate_R` is pupilDilateRight."""
    name = re.sub("_R$", "Right", re.sub("_L$", "Left", name))
    return name[:1].lower() + name[1:]


def _find_template(path: Path) -> Path:
    for candidate in (
        path.parent / "generic_neutral_mesh.obj",
        path.parent / "FaceXModel/generic_neutral_mesh.obj",
    ):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{path}: has no triangles. "
        "Put generic_neutral_mesh.obj of ICT-FaceKit beside it, or in a folder FaceXModel."
    )


def _check_compact(arrays: dict[str, np.ndarray], path: Path):
    for field, dimensions in (
        ("neutral", (VERTICES, 3)),
        ("ids", (None, VERTICES, 3)),
        ("ex", (None, VERTICES, 3)),
    ):
        if field not in arrays:
            raise InputError(
                f"{path}: the field {field} is missing. This is not the compact ICT-FaceKit file."
            )
        values = arrays[field]
        matches = values.ndim == len(dimensions) and all(
            d in (None, n) for d, n in zip(dimensions, values.shape, strict=True)
        )
        if values.dtype.kind != "f" or not matches:
            raise InputError(
                f"{path}: {field} must be numbers of dimensions {dimensions}, "
                f"not {values.dtype} {values.shape}."
            )
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {field} holds numbers that are not finite.")
    names = arrays.get("names")
    if names is None or names.dtype.kind != "U" or names.shape != (len(arrays["ex"]),):
        raise InputError(f"{path}: names must hold one word for each of the {len(arrays['ex'])} expressions.")
    return arrays["neutral"], arrays["ids"], arrays["ex"], [str(name) for name in names]


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_OBJ_BYTES:
            raise InputError(f"{path}: larger than {MAX_OBJ_BYTES >> 20} MiB; not a mesh of ICT-FaceKit.")
        return path.read_text("latin-1")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the folder.") from error


def _numbers(lines: list[str], columns: int, path: Path, what: str) -> np.ndarray:
    try:
        values = np.array([line.split(None, columns + 1)[1 : columns + 1] for line in lines], np.float32)
    except ValueError as error:
        raise InputError(f"{path}: {what} cannot be read ({error}). Fetch the file again.") from error
    if values.ndim != 2 or values.shape[1] != columns or not np.isfinite(values).all():
        raise InputError(f"{path}: {what} must be {columns} finite numbers each. Fetch the file again.")
    return values


def _read_vertices(path: Path) -> np.ndarray:
    lines = [line for line in _read_text(path).splitlines() if line.startswith("v ")]
    if len(lines) != VERTICES:
        raise InputError(f"{path}: {len(lines)} vertices; a mesh of ICT-FaceKit has {VERTICES}.")
    return _numbers(lines, 3, path, "vertices")


def _read_template(path: Path) -> dict:
    """Vertices (cm), atlas UVs and drawn triangles of generic_neutral_mesh.obj."""
    lines = _read_text(path).splitlines()
    uv = _numbers([line for line in lines if line.startswith("vt ")], 2, path, "texture coordinates")
    material, polygons, count = "", {}, 0
    for line in lines:
        if line.startswith("usemtl "):
            material = line.split()[1]
        elif line.startswith("f "):
            count += 1
            try:
                corners = [
                    tuple(int(number) - 1 for number in corner.split("/")[:2]) for corner in line.split()[1:]
                ]
                vertex, texture = zip(*corners, strict=True)
            except ValueError as error:
                raise InputError(
                    f"{path}: cannot read the face {line!r} ({error}). Fetch the file again."
                ) from error
            if min(corners)[0] < 0 or max(vertex) >= VERTICES or min(texture) < 0 or max(texture) >= len(uv):
                raise InputError(
                    f"{path}: the face {line!r} points outside the vertices. Fetch the file again."
                )
            for k in range(1, len(corners) - 1):
                polygons.setdefault(material, []).append(
                    ((vertex[0], vertex[k], vertex[k + 1]), (texture[0], texture[k], texture[k + 1]))
                )
    if count != FACES or not set(TILES) <= set(polygons):
        raise InputError(
            f"{path}: {count} polygons; the mesh of ICT-FaceKit light has {FACES} in 12 materials."
        )
    triangles = [np.array(polygons[name], np.int32) for name in TILES]
    atlas = np.zeros_like(uv)
    for name, drawn in zip(TILES, triangles, strict=True):
        used = np.unique(drawn[:, 1])
        x, y, side = TILES[name]
        atlas[used] = np.clip(uv[used] - np.floor(uv[used].mean(axis=0)), 0, 1) * side + (x, y)
    drawn = np.concatenate(triangles)
    return {"vertices": _read_vertices(path), "uv": atlas, "faces": drawn[:, 0], "uv_faces": drawn[:, 1]}


def _build(template, neutral, identity, expression, names, where: str) -> FaceModel:
    mean = neutral.astype(np.float32) * CENTIMETRE - EARS
    faces = template["faces"]
    order = np.argsort(faces.ravel(), kind="stable")
    first = order[np.searchsorted(faces.ravel()[order], LANDMARKS)]
    landmarks68 = SurfacePoints(
        face=(first // 3).astype(np.int32), barycentric=np.eye(3, dtype=np.float32)[first % 3]
    )
    dense = read_arrays(DENSE)
    regions = ict_regions(mean)
    mean_albedo, albedo_basis = plain_albedo(regions, mean)
    model = FaceModel(
        mean=mean,
        identity_basis=identity.astype(np.float32) * CENTIMETRE,
        expression_basis=expression.astype(np.float32) * CENTIMETRE,
        faces=faces,
        uv=template["uv"],
        uv_faces=template["uv_faces"],
        albedo_mean=mean_albedo,
        albedo_basis=albedo_basis,
        landmarks68=landmarks68,
        landmarks468=SurfacePoints(dense["face"], dense["barycentric"]),
        landmark_sigma468=dense["sigma"],
        landmark_offset468=dense.get("offset"),
        regions=regions,
        name="ict",
        expression_names=tuple(arkit_name(name) for name in names),
        expression_is_blendshape=True,
        licence="MIT (ICT-FaceKit light, USC Institute for Creative Technologies)",
    )
    validate(model, where)
    return as_jax(model)


def _smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; `low` > `high` falls instead."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _distance_to_line(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    start, step = line[:-1], np.diff(line, axis=0)
    t = np.einsum("nkc,kc->nk", points[:, None] - start, step) / (step * step).sum(1)
    return np.linalg.norm(points[:, None] - start - np.clip(t, 0, 1)[..., None] * step, axis=2).min(axis=1)


def ict_regions(mean: np.ndarray) -> dict[str, np.ndarray]:
    """Regions of the mean head (V, 3), mm: from the documented vertex ranges, landmarks and geometry."""
    import cv2

    index = np.arange(VERTICES)

    def part(*ranges):
        return np.isin(index, np.concatenate([index[r] for r in ranges])).astype(np.float32)

    face, points = part(FACE), mean[list(LANDMARKS)]
    x, y, z = mean.T
    outline = (points[48:60, :2] * 64).astype(np.int32)
    inside = np.array(
        [cv2.pointPolygonTest(outline, (px * 64.0, py * 64.0), True) / 64 for px, py in mean[:, :2]]
    )
    lips = (
        face
        * _smooth_step(inside, -1.0, 1.0)
        * _smooth_step(z, points[48:60, 2].min() - 12, points[48:60, 2].min() - 8)
    )
    brow = np.minimum(_distance_to_line(mean, points[17:22]), _distance_to_line(mean, points[22:27]))
    brows = part(NARROW_FACE) * _smooth_step(brow, 5.0, 2.5)
    ears = face * (1 - part(NARROW_FACE)) * _smooth_step(np.abs(x), 67, 71)
    ears *= (
        _smooth_step(z, 5, 1)
        * _smooth_step(z, -40, -36)
        * _smooth_step(y, -38, -34)
        * _smooth_step(y, 28, 24)
    )
    outer = part(FACE, HEAD)
    # The jaw's lower edge rises from the chin to the ear; the hair line from the ear's front to the forehead.
    jaw_edge = np.interp(z, [-20.0, 20.0, 80.0], [-38.0, -72.0, -100.0])
    neck = outer * (1 - ears) * _smooth_step(y - jaw_edge, 4, -4)
    hair_edge = np.interp(z, [-60.0, -12.0, 8.0, 30.0, 60.0, 75.0], [-55.0, -30.0, 28.0, 55.0, 82.0, 92.0])
    scalp = outer * (1 - ears) * (1 - neck) * _smooth_step(y - hair_edge, -6, 6)
    eyes, inner = part(EYEBALLS), part(SOCKETS, GUMS, TEETH)
    skin = outer * (1 - lips) * (1 - brows) * (1 - scalp)
    named = {
        "skin": skin,
        "lips": lips,
        "eyes": eyes,
        "brows": brows,
        "ears": ears,
        "neck": neck,
        "scalp": scalp,
    }
    return {
        k: v.astype(np.float32)
        for k, v in (named | {"inner": inner, "teeth": part(TEETH), "hidden": part(SHELLS)}).items()
    }


def plain_albedo(regions: dict[str, np.ndarray], mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A plain skin where no better albedo is known: mean (V, 3), two tones (2, V, 3), linear RGB.

    The components are roughly one standard deviation of melanin (darker, browner) and of haemoglobin
    (redder).
    """
    colors = {
        "lips": (0.36, 0.13, 0.11),
        "brows": (0.13, 0.08, 0.06),
        "scalp": (0.10, 0.07, 0.05),
        "eyes": (0.60, 0.57, 0.54),
        "inner": (0.25, 0.08, 0.07),
        "teeth": (0.58, 0.50, 0.38),
    }
    albedo = np.tile(np.float32([0.45, 0.25, 0.18]), (len(mean), 1))
    for name, color in colors.items():
        albedo += regions[name][:, None] * (np.float32(color) - albedo)
    skin = (1 - regions["eyes"] - regions["inner"]).clip(0, 1)[:, None]
    tones = np.stack(
        [skin * albedo * np.float32([-0.35, -0.45, -0.50]), skin * albedo * np.float32([0.06, -0.10, -0.06])]
    )
    return albedo, tones.astype(np.float32)
