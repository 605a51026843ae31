"""Fits on disk: what is saved comes back bit for bit, every file means what the README says, and no failure
takes others along.
"""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import trimesh
from tiny_fit import tiny_fit, tiny_model

from facefit.errors import InputError
from facefit.fit import outputs, storage
from facefit.fit.result import Fit
from facefit.fit.summary import camera, file_names
from facefit.model import vertices


def pictures(fit: Fit) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {view.file: rng.integers(0, 255, (*view.size, 3), dtype=np.uint8) for view in fit.views}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A fit of two photographs and the folder it was saved to."""
    folder = tmp_path_factory.mktemp("saved") / "new" / "out"
    fit = tiny_fit(("a.jpg", "elsewhere/a.jpg"))
    fit.save(folder, pictures(fit))
    return fit, folder


def test_loading_gives_the_same_numbers_bit_for_bit(saved):
    fit, folder = saved
    again = Fit.load(folder, fit.model)
    for name in ("identity", "albedo"):
        assert_same_bits(getattr(again, name), getattr(fit, name))
    assert again.report == fit.report
    assert len(again.views) == len(fit.views)
    for one, other in zip(again.views, fit.views, strict=True):
        for field in dataclasses.fields(one):
            value, expected = getattr(one, field.name), getattr(other, field.name)
            if isinstance(expected, np.ndarray):
                assert_same_bits(value, expected)
            else:
                assert value == expected and type(value) is type(expected), field.name


def assert_same_bits(one, other):
    assert one.dtype == other.dtype and one.shape == other.shape
    assert one.tobytes() == np.ascontiguousarray(other).tobytes()


def test_fit_file_needs_no_pickle_and_describes_itself(saved):
    _, folder = saved
    with np.load(folder / "fit.npz", allow_pickle=False) as arrays:
        assert str(arrays["format"]) == "facefit-fit"
        assert str(arrays["model_name"]) == "tiny"
        assert "Millimetres" in str(arrays["conventions"])
        assert arrays["expression_names"].tolist() == ["jawOpen", "mouthSmileLeft", "mouthSmileRight"]


def test_a_fit_is_refused_with_another_model(saved):
    fit, folder = saved
    changed = fit.model.replace(mean=fit.model.mean.at[0, 0].add(1e-3))
    with pytest.raises(InputError, match="fingerprint"):
        Fit.load(folder, changed)


def test_loading_finds_the_model_in_the_file_it_came_from(tmp_path):
    from facefit.model.npz import load_model, save_model

    save_model(tiny_model(), tmp_path / "tiny.npz", encoding="float32")
    model = load_model(tmp_path / "tiny.npz")
    fit = dataclasses.replace(tiny_fit(), model=model)
    fit.report["model"] = str(tmp_path / "tiny.npz")
    storage.save_parameters(fit, tmp_path / "fit.npz")
    assert Fit.load(tmp_path).model.name == "tiny"
    (tmp_path / "tiny.npz").unlink()
    with pytest.raises(InputError, match="was not found"):
        Fit.load(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "other"])
def test_an_unreadable_fit_is_named(tmp_path, damage):
    path = tmp_path / "fit.npz"
    if damage == "text":
        path.write_text("hello")
    elif damage == "other":
        np.savez(path, x=np.zeros(3))
    elif damage == "cut":
        storage.save_parameters(tiny_fit(), path)
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="fit.npz"):
        Fit.load(tmp_path, tiny_model())


def test_every_promised_file_is_there_and_photographs_of_one_name_do_not_overwrite_each_other(saved):
    _, folder = saved
    per_photo = [
        f"{name}.{kind}" for name in ("a", "a_2") for kind in ("overlay.png", "posed.ply", "landmarks.json")
    ]
    common = [
        "fit.npz",
        "summary.json",
        "neutral.ply",
        "landmarks3d.json",
        "mesh.glb",
        "mesh.obj",
        "mesh.mtl",
        "mesh.png",
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(common + per_photo)


def test_neutral_mesh_has_the_identity_alone_and_the_landmarks_lie_on_it(saved):
    fit, folder = saved
    mesh = trimesh.load(folder / "neutral.ply", process=False)
    expected = np.asarray(vertices(fit.model, fit.identity, np.zeros(3, np.float32)))
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-4)  # both are float32 of the same millimetres
    marks = json.loads((folder / "landmarks3d.json").read_text())
    assert marks["units"] == "mm" and np.shape(marks["points"]) == (68, 3)
    _, distance, _ = trimesh.proximity.closest_point_naive(mesh, np.asarray(marks["points"]))
    assert distance.max() < 1e-3


def test_landmark_files_count_pixels_from_the_centre_of_the_first(saved):
    fit, folder = saved
    points = json.loads((folder / "a_2.landmarks.json").read_text())["points"]
    np.testing.assert_allclose(points, fit.views[1].landmarks68 - 0.5, atol=1e-3)


def test_camera_of_the_summary_projects_the_posed_and_the_neutral_frame_alike(saved):
    """The posed mesh is what the summary's rotation and translation make of the mesh in the frame of
    neutral.ply.
    """
    fit, folder = saved
    entry = json.loads((folder / "summary.json").read_text())["photos"][1]
    posed = trimesh.load(folder / "a_2.posed.ply", process=False).vertices
    points = np.asarray(vertices(fit.model, fit.identity, fit.views[1].expression), np.float64)
    expected = points @ np.asarray(entry["camera"]["rotation"]).T + entry["camera"]["translation_mm"]
    np.testing.assert_allclose(posed, expected, atol=2e-3)  # float32 at a distance of 900 mm


def test_camera_is_opencv():
    """A point on the model's axis towards the viewer, seen by OpenCV's own projection, lands where facefit
    puts it.
    """
    from facefit.render import intrinsics, project, to_camera

    view = tiny_fit().views[0]
    points = np.asarray([[0, 0, 100], [30, 40, 50], [-20, 10, 80]], np.float32)
    found = camera(view)
    matrix = np.array(
        [[found["focal_px"], 0, found["center"][0]], [0, found["focal_px"], found["center"][1]], [0, 0, 1]]
    )
    seen, _ = cv2.projectPoints(
        points,
        cv2.Rodrigues(np.asarray(found["rotation"]))[0],
        np.asarray(found["translation_mm"]),
        matrix,
        None,
    )
    ours = project(to_camera(points, view.rotation, view.translation), intrinsics(view.focal_px, view.center))
    np.testing.assert_allclose(
        seen[:, 0] + 0.5, ours, atol=2e-3
    )  # ours counts the first pixel's centre as 0.5


def test_summary_tells_every_photograph_s_fate_and_is_valid_json(tmp_path):
    fit = tiny_fit(("good.jpg",))
    fit.report["photos"] = [
        {"file": "bad.jpg", "outcome": "failed: bad.jpg: no face was found.", "warnings": []},
        {"file": "good.jpg", "outcome": "fitted", "warnings": ["two faces"]},
    ]
    fit.report["seconds"] = {"fit": np.float32(1.5), "odd": float("nan")}
    fit.save(tmp_path, pictures(fit))

    def refuse(word):
        raise ValueError(word)

    content = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    bad, good = content["photos"]
    assert bad["outcome"].startswith("failed") and "camera" not in bad
    assert good["outcome"] == "fitted" and good["camera"]["focal_px"] == fit.views[0].focal_px
    assert good["outputs"] == "good"
    assert content["seconds"] == {"fit": 1.5, "odd": None}


def test_a_broken_output_leaves_the_others_whole(tmp_path, monkeypatch):
    fit = tiny_fit(("a.jpg",))
    fit.save(tmp_path, pictures(fit))
    before = (tmp_path / "mesh.glb").read_bytes()

    def full_disk(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_glb", full_disk)
    monkeypatch.setattr(outputs, "write_obj", full_disk)
    other = tiny_fit(("a.jpg",), seed=5)
    with pytest.raises(InputError, match="mesh.glb: .*No space left") as caught:
        other.save(tmp_path, pictures(other))
    assert "fit.npz" not in str(caught.value)
    assert (tmp_path / "mesh.glb").read_bytes() == before
    assert_same_bits(Fit.load(tmp_path, other.model).identity, other.identity)
    assert any(
        "mesh.glb" in warning for warning in json.loads((tmp_path / "summary.json").read_text())["warnings"]
    )
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_without_the_photograph_everything_else_is_written(tmp_path):
    fit = tiny_fit(("gone.jpg",))
    with pytest.raises(InputError, match="gone.jpg"):
        fit.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"fit.npz", "summary.json", "neutral.ply", "mesh.glb", "mesh.obj", "gone.posed.ply"} <= names
    assert "gone.overlay.png" not in names


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/out.*Choose another folder"):
        tiny_fit().save(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x/a.jpg", "y/a.jpg", "a.png"], ["a", "a_2", "a_3"]),
        (["A.jpg", "a.jpg"], ["A", "a_2"]),
        (["a.jpg", "a_2.jpg", "b/a.jpg"], ["a", "a_2", "a_3"]),
        (["two words ü.jpeg", ".hidden"], ["two words ü", ".hidden"]),
        (["é" * 240 + ".jpg"], ["é" * 100]),
    ],
)
def test_output_names_are_unique(files, names):
    assert file_names(files) == names
