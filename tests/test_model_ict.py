"""ICT-FaceKit is read right from both its layouts, in our units and frame, landmarks in their places."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from facefit.errors import InputError
from facefit.model import find_model, list_models
from facefit.model.ict import LANDMARKS, VERTICES, read_ict
from facefit.model.registration import vertex_normals
from facefit.model.transfer import complete, positions

SHARED = Path(os.environ.get("FACEFIT_SHARED", Path(__file__).resolve().parents[1] / "../shared"))
ICT = SHARED / "data/models/ict_facekit"
pytestmark = pytest.mark.skipif(not ICT.is_dir(), reason=f"ICT-FaceKit is not at {ICT} (set FACEFIT_SHARED)")


@pytest.fixture(scope="module")
def model():
    return read_ict(ICT)


@pytest.fixture(scope="module")
def from_obj():
    return read_ict(ICT / "FaceXModel")


def test_both_layouts_agree(model, from_obj):
    np.testing.assert_allclose(from_obj.mean, model.mean, atol=2e-5)
    count = len(from_obj.identity_basis)
    np.testing.assert_allclose(from_obj.identity_basis, model.identity_basis[:count], atol=2e-5)
    for k, name in enumerate(from_obj.expression_names):
        same = model.expression_basis[model.expression_names.index(name)]
        np.testing.assert_allclose(from_obj.expression_basis[k], same, atol=2e-5)
    assert set(from_obj.expression_names) == {"eyeBlinkLeft", "jawOpen", "mouthSmileLeft"}


def test_it_keeps_its_vertices_and_draws_no_transparent_shell(model):
    assert model.mean.shape == (VERTICES, 3) and model.identity_basis.shape == (100, VERTICES, 3)
    assert len(model.expression_names) == 57
    hidden = np.asarray(model.regions["hidden"]) > 0.5
    assert hidden.sum() == 2128 and not hidden[np.asarray(model.faces)].any()


def test_the_frame_is_ours(model):
    """x to the subject's left: the left eye's blink moves points at positive x; y up; z out; origin: ears."""
    points = positions(model, model.landmarks68)
    blink = np.abs(np.asarray(model.expression_basis[model.expression_names.index("eyeBlinkLeft")])).sum(1)
    assert (np.asarray(model.mean)[blink > 1, 0] > 0).all()
    assert points[36:42, 0].max() < 0 < points[42:48, 0].min()  # iBUG 36-41: the subject's right eye
    assert points[8, 1] < points[57, 1] < points[30, 1] < points[27, 1]  # chin, lip, nose, bridge
    assert points[30, 2] > 90
    ears = np.asarray(model.mean)[np.asarray(model.regions["ears"]) > 0.5]
    assert (
        np.abs(ears[:, 0]).min() > 60 and np.abs(ears.mean(0)).max() < 25
    )  # the tragus is in front of the ear
    assert 85 < np.linalg.norm(points[36] - points[45]) < 95  # between the outer eye corners, mm


def test_triangles_wind_counter_clockwise_from_outside(model):
    mean, faces = np.asarray(model.mean, np.float64), np.asarray(model.faces)
    normals = vertex_normals(mean, faces)[list(LANDMARKS)]
    assert (normals[17:, 2] > 0).all()  # brows, nose, eyes and lips look forward


def test_jaw_points_follow_the_outline_of_a_frontal_face(model):
    mean, faces = np.asarray(model.mean, np.float64), np.asarray(model.faces)
    jaw = mean[list(LANDMARKS[:17])]
    normals = vertex_normals(mean, faces)[list(LANDMARKS[:17])]
    assert (normals[:, 2] < 0.45).all()  # none on the front of cheek or chin
    # The chin has no skin in front of the neck more than 4 mm below point 8.
    front = mean[(np.abs(mean[:, 0]) < 3) & (mean[:, 2] > 60)]
    assert jaw[8, 1] - front[:, 1].min() < 4
    np.testing.assert_allclose(jaw * [-1, 1, 1], jaw[::-1], atol=0.5)
    steps = np.linalg.norm(np.diff(jaw[:, :2], axis=0), axis=1)
    assert steps.max() < 2.0 * steps.min()


def test_regions_are_where_they_should_be(model):
    mean = np.asarray(model.mean)
    points = positions(model, model.landmarks68)

    def centre(name, side=1):
        chosen = (np.asarray(model.regions[name]) > 0.5) & (mean[:, 0] * side > 0)
        return mean[chosen].mean(0)

    assert np.linalg.norm(centre("eyes") - points[42:48].mean(0)) < 20
    assert abs(centre("brows")[1] - points[22:27].mean(0)[1]) < 4
    assert abs(centre("lips")[1] - points[48:60].mean(0)[1]) < 6
    assert centre("neck")[1] < points[8, 1] and centre("scalp")[1] > points[27, 1]
    assert np.asarray(model.regions["skin"])[list(LANDMARKS[27:36])].min() > 0.9


def test_every_triangle_has_area_in_one_atlas(model):
    uv = np.asarray(model.uv)[np.unique(np.asarray(model.uv_faces))]
    assert uv.min() >= 0 and uv.max() <= 1
    corners = np.asarray(model.uv)[np.asarray(model.uv_faces)]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = 0.5 * np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    assert 0.4 < area.sum() < 1.0  # no part lies over another, or the sum would pass one
    assert (area > 0).mean() > 0.999


def test_dense_landmarks_agree_with_the_sparse_ones(model):
    dense, sparse = positions(model, model.landmarks468), positions(model, model.landmarks68)
    # Eye corners, nose tip, mouth corners, lips, chin: the two sets name the same places, found in different
    # ways.
    pairs = (
        (36, 33, 4),
        (39, 133, 4),
        (45, 263, 4),
        (30, 4, 6),
        (48, 61, 5),
        (54, 291, 5),
        (51, 0, 4),
        (57, 17, 5),
    )
    for ibug, mesh, tolerance in (*pairs, (8, 152, 12)):
        assert np.linalg.norm(sparse[ibug] - dense[mesh]) < tolerance, (ibug, mesh)
    sigma = np.asarray(model.landmark_sigma468)
    assert 0.003 < np.median(sigma) < 0.04


def test_a_file_without_its_mesh_says_what_to_fetch(tmp_path):
    shutil.copy(ICT / "ict_facekit_float32.npz", tmp_path / "ict.npz")
    with pytest.raises(InputError, match=r"generic_neutral_mesh\.obj"):
        find_model(tmp_path / "ict.npz")


def test_a_damaged_obj_is_named(tmp_path):
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    shutil.copy(ICT / "FaceXModel/generic_neutral_mesh.obj", folder)
    with pytest.raises(InputError, match="identity000"):
        read_ict(folder)
    (folder / "identity000.obj").write_text("v 0 0 0\n")
    with pytest.raises(InputError, match=r"identity000\.obj: 1 vertices"):
        read_ict(folder)
    text = (ICT / "FaceXModel/identity000.obj").read_text("latin-1")
    (folder / "identity000.obj").write_text(text.replace("\nv 0", "\nv nan", 1))
    with pytest.raises(InputError, match=r"identity000\.obj: vertices"):
        read_ict(folder)


@pytest.mark.slow
def test_albedo_comes_from_the_open_model(model):
    if "open" not in list_models():
        pytest.skip("the open model has not been built")
    reference = find_model("open")
    full = complete(model, reference, ("albedo",))
    assert full.albedo_basis.shape[0] == reference.albedo_basis.shape[0]
    lips, cheek = (
        np.asarray(full.albedo_mean)[list(ids)].mean(0) for ids in (LANDMARKS[48:60], LANDMARKS[2:4])
    )
    assert lips[0] / lips[1] > cheek[0] / cheek[1]  # lips are redder
    ears = np.asarray(full.albedo_mean)[np.asarray(model.regions["ears"]) > 0.9]
    assert np.quantile(ears[:, 0], 0.05) > 0.2  # skin, not hair
    teeth = np.asarray(full.albedo_mean)[np.asarray(model.regions["teeth"]) > 0.5]
    assert teeth.min() > 0.3  # no gums
    # The transferred dense points, a first guess, lie near those that the network sees.
    guess = complete(model, reference, ("landmarks468",))
    distance = np.linalg.norm(
        positions(guess, guess.landmarks468) - positions(model, model.landmarks468), axis=1
    )
    assert np.median(distance) < 4
