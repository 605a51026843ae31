"""Mesh and landmark files hold what was given, read by trimesh, by hand, and by the Khronos validator."""

import json
import shutil
import struct
import subprocess

import numpy as np
import pytest
import trimesh
from tiny_model import NAMES, tiny_model

from facefit.errors import InputError
from facefit.export.gltf import write_glb
from facefit.export.landmarks import write_landmarks, write_landmarks3d
from facefit.export.obj import write_obj
from facefit.export.ply import write_ply
from facefit.export.views import draw
from facefit.model.registration import vertex_normals

VALIDATE = """
const validator = require('gltf-validator'), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report)));
"""


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texture():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def glb(model, texture, tmp_path):
    path = tmp_path / "mesh.glb"
    mean, faces = np.asarray(model.mean), np.asarray(model.faces)
    write_glb(
        path,
        mean,
        faces,
        model.uv,
        model.uv_faces,
        texture,
        vertex_normals(mean, faces),
        model.expression_basis,
        NAMES,
    )
    return path


def accessor(path, index):
    """One accessor of a GLB file as an array, decoded by the letter of the glTF specification."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    binary = data[28 + length :]
    entry = document["accessors"][index]

    def read(view, component, count, width):
        dtype = {5126: "<f4", 5125: "<u4"}[component]
        offset = document["bufferViews"][view]["byteOffset"]
        return np.frombuffer(binary, dtype, count * width, offset).reshape(count, width)

    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[entry["type"]]
    if "bufferView" in entry:
        return document, read(entry["bufferView"], entry["componentType"], entry["count"], width)
    values = np.zeros((entry["count"], width), np.float32)
    if sparse := entry.get("sparse"):
        rows = read(sparse["indices"]["bufferView"], sparse["indices"]["componentType"], sparse["count"], 1)[
            :, 0
        ]
        values[rows] = read(sparse["values"]["bufferView"], entry["componentType"], sparse["count"], width)
    return document, values


@pytest.mark.parametrize("colored", [False, True])
def test_ply_reads_back_exactly(model, tmp_path, colored):
    colors = np.random.default_rng(1).integers(0, 256, model.mean.shape, dtype=np.uint8) if colored else None
    write_ply(tmp_path / "a.ply", model.mean, model.faces, colors, comment="two\nlines")
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_array_equal(np.float32(mesh.vertices), model.mean)
    np.testing.assert_array_equal(mesh.faces, model.faces)
    if colored:
        np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], colors)


def test_obj_reads_back_with_uv_and_picture(model, texture, tmp_path):
    write_obj(tmp_path / "a face.obj", model.mean, model.faces, model.uv, model.uv_faces, texture)
    mesh = trimesh.load(tmp_path / "a face.obj", process=False)
    # trimesh numbers (position, uv) pairs in its own order: compare what the triangles show.
    np.testing.assert_allclose(
        mesh.vertices[mesh.faces], np.asarray(model.mean)[np.asarray(model.faces)], atol=6e-6
    )  # written with five decimals
    np.testing.assert_allclose(
        mesh.visual.uv[mesh.faces], np.asarray(model.uv)[np.asarray(model.uv_faces)], atol=6e-7
    )  # six decimals
    np.testing.assert_array_equal(np.asarray(mesh.visual.material.image.convert("RGB")), texture)


def test_glb_reads_back_in_metres_with_its_picture(model, texture, glb):
    mesh = trimesh.load(glb, process=False, force="mesh")
    corners = np.asarray(model.mean)[np.asarray(model.faces)] * 0.001
    np.testing.assert_allclose(mesh.vertices[mesh.faces], corners, atol=1e-7)  # float32 of 0.1 m
    np.testing.assert_allclose(
        mesh.visual.uv[mesh.faces], np.asarray(model.uv)[np.asarray(model.uv_faces)], atol=1e-6
    )
    picture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(picture, texture)


def test_glb_morph_targets_are_the_expressions(model, glb):
    document, position = accessor(glb, 0)
    primitive = document["meshes"][0]["primitives"][0]
    assert document["meshes"][0]["extras"]["targetNames"] == list(NAMES)
    original = accessor(glb, primitive["attributes"]["_VERTEX"])[1][:, 0].astype(int)
    weights = np.float32([0.7, 0.2, 1.0])
    morphed = position.copy()
    for weight, target in zip(weights, primitive["targets"], strict=True):
        morphed += weight * accessor(glb, target["POSITION"])[1]
    expected = np.asarray(model.mean) + np.tensordot(weights, np.asarray(model.expression_basis), 1)
    # At most a micrometre a target was dropped.
    np.testing.assert_allclose(morphed * 1000, expected[original], atol=3e-3)
    assert np.abs(expected - np.asarray(model.mean)).max() > 5


def test_glb_targets_that_move_little_are_stored_sparse(model, glb):
    document, _ = accessor(glb, 0)
    targets = document["meshes"][0]["primitives"][0]["targets"]
    assert all("sparse" in document["accessors"][t["POSITION"]] for t in targets)


def test_glb_has_no_error_for_the_khronos_validator(glb):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    probe = subprocess.run([node, "-e", "require('gltf-validator')"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(
            "the npm package gltf-validator is not found (npm i gltf-validator; NODE_PATH=.../node_modules)"
        )
    done = subprocess.run([node, "-e", VALIDATE, str(glb)], capture_output=True, text=True, check=True)
    issues = json.loads(done.stdout)["issues"]
    assert issues["numErrors"] == 0 and issues["numWarnings"] == 0, issues["messages"]


def test_a_glb_rendered_back_shows_each_point_with_its_own_texel(model, tmp_path):
    """The picture's red is u and its green is v, so that every pixel of the rendering says where its texel
    lies."""
    middles = (np.arange(256) + 0.5) / 256
    across = np.broadcast_to(middles, (256, 256))
    picture = np.round(255 * np.stack([across, 1 - across.T, 0 * across], -1)).astype(np.uint8)
    mean, faces, uv = np.asarray(model.mean), np.asarray(model.faces), np.asarray(model.uv)
    path = tmp_path / "a.glb"
    write_glb(path, mean, faces, uv, model.uv_faces, picture, vertex_normals(mean, faces))

    document, position = accessor(path, 0)
    primitive = document["meshes"][0]["primitives"][0]
    texel = accessor(path, primitive["attributes"]["TEXCOORD_0"])[1]
    triangles = accessor(path, primitive["indices"])[1].reshape(-1, 3).astype(np.int32)
    texture = np.asarray(trimesh.load(path, force="mesh").visual.material.baseColorTexture.convert("RGB"))
    camera = np.float32([[400, 0, 64], [0, 400, 64], [0, 0, 1]])

    def drawn(points, faces):
        placed = (points - mean.mean(0)) * [1, -1, -1] + [0, 0, 4 * np.ptp(mean)]
        return draw(placed, faces, camera, (128, 128))

    source, back = drawn(mean, faces), drawn(position * 1000, triangles)
    shown = source.face >= 0
    assert shown.mean() > 0.2
    # Metres and back are rounded, which may move a pixel's centre over an edge.
    assert (back.face == source.face).mean() > 0.999
    shown &= back.face == source.face
    corners = uv[np.asarray(model.uv_faces)[source.face[shown]]]
    expected = np.einsum("nk,nkc->nc", source.barycentric[shown], corners)
    where = 256 * back.interpolate(texel, triangles)[shown]
    colors = texture[tuple(np.clip(where[:, ::-1].astype(int), 0, 255).T)]
    # The nearest texel is up to half a texel away, and its colour is rounded.
    assert np.abs(colors[:, :2] / 255 - expected).max() < 1.1 / 256


def test_a_target_without_motion_is_allowed(model, texture, tmp_path):
    mean, faces = np.asarray(model.mean), np.asarray(model.faces)
    still = np.zeros((1, *mean.shape))
    write_glb(
        tmp_path / "a.glb",
        mean,
        faces,
        model.uv,
        model.uv_faces,
        texture,
        vertex_normals(mean, faces),
        still,
        ["still"],
    )
    document, _ = accessor(tmp_path / "a.glb", 0)
    _, values = accessor(tmp_path / "a.glb", document["meshes"][0]["primitives"][0]["targets"][0]["POSITION"])
    assert not values.any()


def test_landmark_files_follow_the_outside_convention(tmp_path):
    points = np.random.default_rng(2).uniform(0, 500, (68, 2))
    write_landmarks(tmp_path / "a.json", points)
    read = json.loads((tmp_path / "a.json").read_text())
    np.testing.assert_allclose(read["points"], points - 0.5, atol=1e-4)
    write_landmarks3d(tmp_path / "b.json", np.ones((68, 3)))
    assert json.loads((tmp_path / "b.json").read_text()) == {"points": [[1.0, 1.0, 1.0]] * 68, "units": "mm"}


def test_what_is_not_finite_is_refused_and_nothing_is_lost(model, texture, tmp_path):
    path = tmp_path / "a.ply"
    write_ply(path, model.mean, model.faces)
    before = path.read_bytes()
    broken = np.array(model.mean)
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="vertices: 1 values are not finite"):
        write_ply(path, broken, model.faces)
    with pytest.raises(ValueError, match="vertices"):
        write_glb(tmp_path / "a.glb", broken, model.faces, model.uv, model.uv_faces, texture, broken)
    with pytest.raises(ValueError, match="vertices"):
        write_obj(tmp_path / "a.obj", broken, model.faces, model.uv, model.uv_faces, texture)
    with pytest.raises(ValueError, match="points"):
        write_landmarks(tmp_path / "a.json", np.full((68, 2), np.inf))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_a_missing_folder_is_named(model, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        write_ply(tmp_path / "nowhere" / "a.ply", model.mean, model.faces)
