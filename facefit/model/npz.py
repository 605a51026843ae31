"""Our own model file: a self-describing .npz with the fields of `FaceModel`, read without pickle, checked."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np

from facefit.errors import InputError
from facefit.model.atomic import write_bytes
from facefit.model.records import FaceModel, SurfacePoints

FORMAT = "facefit-model"
VERSION = 1
MAX_BYTES = 1 << 30  # of all arrays together, unpacked: ICT-FaceKit in float32 needs 51 MB
MAX_MEMBERS = 256
BASES = ("identity_basis", "expression_basis", "albedo_basis")
REGIONS = ("skin", "lips", "eyes", "brows", "ears", "neck", "scalp", "inner")

Encoding = Literal["float32", "float16", "int16", "int8"]


def read_arrays(
    path: str | Path, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS
) -> dict[str, np.ndarray]:
    """Reads every array of an .npz file without trusting it.

    Sizes are taken from the zip directory and from each array's header, and refused when they disagree or
    when all arrays together exceed `max_bytes`, before any data is unpacked. Object arrays (pickle) are
    refused.

    Raises:
        InputError: the file is missing, no .npz, too large, damaged, or holds an array of an unsupported
            type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > max_members:
                raise InputError(
                    f"{path}: {len(members)} arrays in one file; there are {max_members} at most."
                )
            total = sum(member.file_size for member in members)
            if total > max_bytes:
                raise InputError(
                    f"{path}: the arrays would unpack to {total / 2**20:.0f} MiB, more than the limit of "
                    f"{max_bytes / 2**20:.0f} MiB. This is no file of facefit; check where it came from."
                )
            arrays = {}
            for member in members:
                if not member.filename.endswith(".npy"):
                    raise InputError(
                        f"{path}: {member.filename!r} is not a NumPy array. A model is a plain .npz file."
                    )
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise InputError(f"{path}: the array {name!r} is there twice. Write the file again.")
                with archive.open(member) as stream:
                    arrays[name] = _read_array(stream, member.file_size, f"{path}: {name}")
            return arrays
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        raise InputError(
            f"{path}: not a readable .npz file ({error}). Fetch or convert the model again."
        ) from error
    except Exception as error:  # zlib.error, struct.error and ValueError of damaged streams
        raise InputError(f"{path}: damaged .npz file ({error}). Fetch or convert the model again.") from error


def _read_array(stream, file_size: int, where: str) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        dimensions, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        dimensions, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise InputError(
            f"{where}: NumPy array format {version} is not supported. Write the file with numpy.savez."
        )
    if dtype.hasobject or dtype.kind not in "biufU":
        raise InputError(
            f"{where}: arrays of type {dtype} are refused (they could run code). Store plain numbers or text."
        )
    length = math.prod(dimensions) * dtype.itemsize
    if length != file_size - stream.tell():
        raise InputError(
            f"{where}: {length} bytes announced, {file_size - stream.tell()} there. The file is damaged."
        )
    values = np.frombuffer(stream.read(length), dtype=dtype)
    return values.reshape(dimensions[::-1]).T.copy() if fortran else values.reshape(dimensions)


def write_arrays(arrays: Mapping[str, np.ndarray], path: str | Path, compress: bool = True) -> None:
    """Writes an .npz file; one already there is replaced whole or not at all.

    The same arrays give the same bytes (zip entries carry no time).

    Raises:
        InputError: the folder is missing or cannot be written.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, values in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(values, order="C"), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)
    write_bytes(path, target.getvalue())


def encode_basis(basis: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray | None]:
    """A basis (K, V, 3) in fewer bits: values, and for the integer encodings the scale of each component
    (K,).

    int16 keeps 1/32767 of a component's largest offset, more than float16 does; int8 keeps 1/127.
    """
    basis = np.asarray(basis, np.float32)
    if encoding in ("float32", "float16"):
        return basis.astype(encoding), None
    top = np.iinfo(encoding).max
    scale = np.abs(basis).reshape(len(basis), -1).max(1, initial=0.0).astype(np.float32) / top
    safe = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(basis / safe[:, None, None]).clip(-top, top).astype(encoding), scale


def save_model(
    model: FaceModel,
    path: str | Path,
    encoding: Encoding | Mapping[str, Encoding] = "int16",
    compress: bool = True,
) -> None:
    """Writes `model` as .npz.

    Args:
        encoding: of the three bases; one word for all, or a mapping from "identity_basis",
            "expression_basis", "albedo_basis" to a word (those left out are int16). Integer bases carry
            `NAME_scale`, one a component.
        compress: False makes larger files that load faster.

    Raises:
        InputError: the model is inconsistent (as in `validate`), or the file cannot be written.
    """
    validate(model, "the model to save")
    arrays: dict[str, np.ndarray] = {
        "format": np.asarray(FORMAT),
        "version": np.asarray(VERSION, np.int32),
        "name": np.asarray(model.name),
        "licence": np.asarray(model.licence),
        "expression_names": np.asarray(model.expression_names, dtype=np.str_),
        "expression_is_blendshape": np.asarray(model.expression_is_blendshape),
    }
    for field in ("mean", "uv", "albedo_mean", "landmark_sigma468"):
        arrays[field] = np.asarray(getattr(model, field), np.float32)
    if model.landmark_offset468 is not None:
        arrays["landmark_offset468"] = np.asarray(model.landmark_offset468, np.float32)
    for field in ("faces", "uv_faces"):
        arrays[field] = np.asarray(getattr(model, field), np.int32)
    for field in BASES:
        chosen = encoding if isinstance(encoding, str) else encoding.get(field, "int16")
        values, scale = encode_basis(np.asarray(getattr(model, field)), chosen)
        arrays[field] = values
        if scale is not None:
            arrays[f"{field}_scale"] = scale
    for field in ("landmarks68", "landmarks468"):
        points = getattr(model, field)
        arrays[f"{field}_face"] = np.asarray(points.face, np.int32)
        arrays[f"{field}_barycentric"] = np.asarray(points.barycentric, np.float32)
    for region, membership in model.regions.items():
        arrays[f"regions/{region}"] = np.asarray(membership, np.float16)
    write_arrays(arrays, path, compress)


def load_model(path: str | Path) -> FaceModel:
    """Reads a model that `save_model` wrote.

    Raises:
        InputError: no such file, not one of ours, a newer version, or a field that is missing or wrong; the
            message names the file and the field.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such model file. Check the path, or run `facefit models list`.")
    return model_from_arrays(read_arrays(path), str(path))


def model_from_arrays(arrays: Mapping[str, np.ndarray], where: str) -> FaceModel:
    """The `FaceModel` in the arrays of a model file; `where` names the file in messages.

    Raises:
        InputError: as `load_model`.
    """
    if "format" not in arrays or str(arrays["format"]) != FORMAT:
        raise InputError(
            f"{where}: not a facefit model file. "
            f"Convert it first: facefit models convert {where} -o model.npz"
        )
    version = _get(arrays, "version", where)
    if version.shape != () or version.dtype.kind not in "iu" or not 1 <= int(version) <= VERSION:
        raise InputError(
            f"{where}: version {version} of the model format, "
            f"and this facefit reads up to {VERSION}. Update facefit."
        )
    fields = {
        name: _floats(arrays, name, where) for name in ("mean", "uv", "albedo_mean", "landmark_sigma468")
    }
    if "landmark_offset468" in arrays:
        fields["landmark_offset468"] = _floats(arrays, "landmark_offset468", where)
    fields |= {name: _integers(arrays, name, where) for name in ("faces", "uv_faces")}
    for name in BASES:
        values = _get(arrays, name, where)
        if values.ndim != 3:
            raise InputError(f"{where}: {name} must be (components, vertices, 3), not {values.shape}.")
        if values.dtype.kind in "iu":
            scale = _floats(arrays, f"{name}_scale", where)
            if scale.shape != (len(values),):
                raise InputError(f"{where}: {name}_scale must be ({len(values)},), not {scale.shape}.")
            values = values.astype(np.float32) * scale[:, None, None]
        fields[name] = values.astype(np.float32, copy=False)
    for name in ("landmarks68", "landmarks468"):
        fields[name] = SurfacePoints(
            face=_integers(arrays, f"{name}_face", where),
            barycentric=_floats(arrays, f"{name}_barycentric", where),
        )
    regions = {
        key.removeprefix("regions/"): _floats(arrays, key, where)
        for key in arrays
        if key.startswith("regions/")
    }
    names = _get(arrays, "expression_names", where)
    if names.ndim != 1 or (names.size and names.dtype.kind != "U"):
        raise InputError(f"{where}: expression_names must be a list of words.")
    blendshape = _get(arrays, "expression_is_blendshape", where)
    if blendshape.shape != () or blendshape.dtype.kind != "b":
        raise InputError(f"{where}: expression_is_blendshape must be one boolean.")
    model = FaceModel(
        **fields,
        regions=regions,
        name=str(_get(arrays, "name", where)),
        licence=str(_get(arrays, "licence", where)),
        expression_names=tuple(str(name) for name in names),
        expression_is_blendshape=bool(blendshape),
    )
    validate(model, where)
    return as_jax(model)


def as_jax(model: FaceModel) -> FaceModel:
    """The same model with every array on the default device, float32 and int32."""
    import jax

    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.int32 if np.issubdtype(leaf.dtype, np.integer) else jnp.float32),
        model,
    )


def validate(model: FaceModel, where: str) -> None:
    """Checks that all fields of `model` fit together.

    Raises:
        InputError: names `where` and the first field that is wrong: dimensions, index range, or not finite.
    """
    vertices, identity, expression, albedo = (
        np.shape(model.mean)[0] if np.ndim(model.mean) else 0,
        *(np.shape(getattr(model, name))[0] if np.ndim(getattr(model, name)) else 0 for name in BASES),
    )
    faces = np.shape(model.faces)[0] if np.ndim(model.faces) else 0
    expected = {
        "mean": (vertices, 3),
        "identity_basis": (identity, vertices, 3),
        "expression_basis": (expression, vertices, 3),
        "albedo_mean": (vertices, 3),
        "albedo_basis": (albedo, vertices, 3),
        "faces": (faces, 3),
        "uv_faces": (faces, 3),
        "uv": (np.shape(model.uv)[0] if np.ndim(model.uv) else 0, 2),
        "landmark_sigma468": (468,),
    }
    if model.landmark_offset468 is not None:
        expected["landmark_offset468"] = (468, 3)
    if not vertices or not faces:
        raise InputError(
            f"{where}: {'faces' if vertices else 'mean'} is empty. A model needs vertices and triangles."
        )
    for name, dimensions in expected.items():
        _check(np.asarray(getattr(model, name)), dimensions, f"{where}: {name}")
    _check_range(model.faces, vertices, f"{where}: faces")
    _check_range(model.uv_faces, np.shape(model.uv)[0], f"{where}: uv_faces")
    for name, count in (("landmarks68", 68), ("landmarks468", 468)):
        points = getattr(model, name)
        _check(np.asarray(points.face), (count,), f"{where}: {name}_face")
        _check(np.asarray(points.barycentric), (count, 3), f"{where}: {name}_barycentric")
        _check_range(points.face, faces, f"{where}: {name}_face")
        if np.abs(np.asarray(points.barycentric, np.float64).sum(1) - 1).max() > 1e-3:
            raise InputError(f"{where}: {name}_barycentric: every row must sum to one.")
    if (np.asarray(model.landmark_sigma468) < 0).any():
        raise InputError(f"{where}: landmark_sigma468 must not be negative.")
    for name in REGIONS:
        if name not in model.regions:
            raise InputError(f"{where}: regions/{name} is missing; it may be all zero.")
    for name, membership in model.regions.items():
        values = np.asarray(membership)
        _check(values, (vertices,), f"{where}: regions/{name}")
        if values.min() < 0 or values.max() > 1:
            raise InputError(f"{where}: regions/{name} must lie between 0 and 1.")
    if len(model.expression_names) != expression:
        raise InputError(
            f"{where}: expression_names has {len(model.expression_names)} names for {expression} expressions."
        )


def _get(arrays: Mapping[str, np.ndarray], name: str, where: str) -> np.ndarray:
    if name not in arrays:
        raise InputError(
            f"{where}: the field {name} is missing. Convert the model again with this version of facefit."
        )
    return arrays[name]


def _floats(arrays: Mapping[str, np.ndarray], name: str, where: str) -> np.ndarray:
    values = _get(arrays, name, where)
    if values.dtype.kind != "f":
        raise InputError(f"{where}: {name} must hold floating point numbers, not {values.dtype}.")
    return values.astype(np.float32)


def _integers(arrays: Mapping[str, np.ndarray], name: str, where: str) -> np.ndarray:
    values = _get(arrays, name, where)
    if values.dtype.kind not in "iu":
        raise InputError(f"{where}: {name} must hold integers, not {values.dtype}.")
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.int32).max):
        raise InputError(f"{where}: {name}: indices must not be negative or beyond 32 bits.")
    return values.astype(np.int32)


def _check(values: np.ndarray, dimensions: tuple[int, ...], what: str) -> None:
    if values.shape != dimensions:
        raise InputError(f"{what} must have dimensions {dimensions}, not {values.shape}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{what} holds numbers that are not finite.")


def _check_range(indices, count: int, what: str) -> None:
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise InputError(f"{what} must hold integers, not {indices.dtype}.")
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise InputError(f"{what}: an index lies outside 0..{count - 1}.")
