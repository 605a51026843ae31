"""What is known of another model's faces, told in our coefficients, puts the same face in the same place."""

import json
import shutil

import cv2
import numpy as np
import pytest

from experiments.convert_labels import Arguments, Conversion, convert
from facefit.encoder import dataset
from facefit.encoder.surface import frontal_vertices
from facefit.encoder.synthetic_data import SynthesisSettings, synthesize
from facefit.errors import InputError
from facefit.model import find_model
from facefit.model.npz import save_model
from facefit.model.proximity import closest_points
from facefit.photo.face_crop import CROP_FOCAL, NETWORK_SHARE

SIZE = 64
TURN = cv2.Rodrigues(np.array([0.06, -0.04, 0.03]))[0]


@pytest.fixture(scope="module")
def model():
    return find_model("open")


@pytest.fixture(scope="module")
def other(model):
    """The same heads, but turned and moved in their frame, under another name."""
    turned = {
        name: (np.asarray(getattr(model, name)) @ TURN.T).astype(np.float32)
        for name in ("mean", "identity_basis", "expression_basis")
    }
    turned["mean"] += np.float32([1, -4, 6])
    return model.replace(name="other", **turned)


def in_camera(model, truth) -> np.ndarray:
    """Frontal vertices in the camera's frame, millimetres."""
    chosen = frontal_vertices(model)
    points = np.asarray(model.mean)[chosen].astype(float)
    for name in ("identity", "expression"):
        points += np.tensordot(truth[name], np.asarray(getattr(model, f"{name}_basis"))[:, chosen], 1)
    farther = truth["focal"] / (CROP_FOCAL * NETWORK_SHARE * SIZE)
    turn = cv2.Rodrigues(truth["rotation"].astype(float))[0]
    return (points * [1, -1, -1]) @ turn.T + truth["translation"] * [1, 1, farther]


def _whole(model, frontal) -> np.ndarray:
    vertices = np.zeros_like(np.asarray(model.mean), float)
    vertices[frontal_vertices(model)] = frontal
    return vertices


def _frontal_faces(model) -> np.ndarray:
    faces = np.asarray(model.faces)
    return faces[np.isin(faces, frontal_vertices(model)).all(1)]


@pytest.fixture(scope="module")
def conversion(other, model):
    return Conversion(other, model)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_converted_face_is_where_the_other_models_was(conversion, other, model, seed):
    rng = np.random.default_rng(seed)
    truth = {
        "identity": rng.standard_normal(len(model.identity_basis)),
        "expression": rng.uniform(0, 0.3, len(model.expression_basis)),
        "albedo": rng.standard_normal(len(model.albedo_basis)),
        "lighting": np.ones((9, 3)),
        "rotation": rng.normal(0, 0.4, 3),
        "translation": np.array([3.0, 5.0, 700.0]),
        "focal": np.float32(150.0),
    }
    truth = {name: np.asarray(values, np.float32) for name, values in truth.items()}
    found = conversion(truth, SIZE)
    wanted = in_camera(other, truth)
    placed = in_camera(model, found)
    surface = closest_points(wanted[::10], _whole(model, placed), _frontal_faces(model)).distance
    unlike = np.linalg.norm(in_camera(other, truth | {"identity": 0 * truth["identity"]}) - wanted, axis=1)
    # What the prior takes of the many small components, and of movements along the surface.
    assert surface.mean() < 0.45 and np.linalg.norm(placed - wanted, axis=1).mean() < 1.5
    assert unlike.mean() > 2
    for name in ("albedo", "lighting", "focal"):
        assert np.array_equal(found[name], truth[name])


@pytest.mark.slow
def test_a_data_set_is_converted_once(other, model, tmp_path):
    file, foreign, converted = tmp_path / "other.npz", tmp_path / "foreign", tmp_path / "converted"
    save_model(other, file)
    synthesize(foreign, SynthesisSettings(2, 3, str(file), SIZE, 1))
    assert convert(Arguments(foreign, converted)) == 2
    assert convert(Arguments(foreign, converted)) == 2
    before, after = dataset.read_dataset(foreign), dataset.read_dataset(converted)
    assert after.facts["model"] == "open" and after.facts["coefficients"]["identity"] == len(
        model.identity_basis
    )
    for index in range(2):
        pair = [{name: values[index] for name, values in data.truth.items()} for data in (before, after)]
        assert np.abs(in_camera(other, pair[0]) - in_camera(model, pair[1])).mean() < 1.0
        assert np.array_equal(
            dataset.read_sample(foreign, index)[0], dataset.read_sample(converted, index)[0]
        )
    with pytest.raises(InputError, match="model open already"):
        convert(Arguments(_named(converted, tmp_path / "ours", "open"), tmp_path / "again"))


def _named(folder, copy, model):
    """A copy of a data set that says it was made with another model."""
    shutil.copytree(folder, copy)
    facts = json.loads((copy / "dataset.json").read_text())
    facts["settings"]["model"] = model
    (copy / "dataset.json").write_text(json.dumps(facts))
    return copy
