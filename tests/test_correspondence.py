"""Dense landmarks found by rendering: known points are found again, and so is their scatter."""

import numpy as np
import pytest

from facefit import correspondence
from facefit.correspondence import find_landmarks468
from facefit.model import find_model
from facefit.model.transfer import positions, project_points
from facefit.photo import face_mesh

NOISE = 0.01  # of the outer eye distance


@pytest.fixture(scope="module")
def model():
    return find_model("open")


def test_points_that_a_perfect_network_sees_are_found_again_with_their_noise(model, monkeypatch):
    """The network is replaced by one that knows where 468 points of the face are, and errs by a known
    amount."""
    truth = model.landmarks468
    random = np.random.default_rng(5)
    camera = {}
    draw = correspondence._draw

    def watched(model, identity, coefficients, rotation, light, background):
        shown = draw(model, identity, coefficients, rotation, light, background)
        points = np.asarray(model.mean) + np.tensordot(identity, np.asarray(model.identity_basis), 1)
        places = (
            points[np.asarray(model.faces)[np.asarray(truth.face)]] * np.asarray(truth.barycentric)[..., None]
        ).sum(1)
        at = correspondence.to_camera(places.astype(np.float32), rotation, shown[-1])
        camera["pixels"] = np.asarray(correspondence.project(at, correspondence.picture_intrinsics()))
        return shown

    def perfect(pixels, squares):
        eyes = np.asarray(positions(model, model.landmarks68))[[36, 45]]
        unit = (
            np.linalg.norm(eyes[0] - eyes[1])
            * correspondence.picture_intrinsics()[0, 0]
            / correspondence.DISTANCE
        )
        found = camera["pixels"] + random.normal(0, NOISE * unit, (468, 2))
        return np.concatenate([found, np.zeros((468, 1))], 1)[None].astype(np.float32), np.ones(1)

    monkeypatch.setattr(correspondence, "_draw", watched)
    monkeypatch.setattr(face_mesh, "landmarks", perfect)
    points, sigma = find_landmarks468(model, subjects=4, seed=1)
    error = np.linalg.norm(np.asarray(positions(model, points)) - np.asarray(positions(model, truth)), axis=1)
    # 28 views with 0.9 mm of noise each, seen obliquely in part; points at the outline are hit less often.
    assert np.median(error) < 0.6 and np.quantile(error, 0.95) < 2.5
    assert NOISE * 0.7 < np.median(sigma) < NOISE * 1.4


def test_no_face_in_the_renderings_is_an_error(model, monkeypatch):
    def blind(pixels, squares):
        return np.full((1, 468, 3), 160.0, np.float32) + np.arange(468)[None, :, None] * 0.01, np.zeros(1)

    monkeypatch.setattr(face_mesh, "landmarks", blind)
    with pytest.raises(ValueError, match="sees a face in only 0"):
        find_landmarks468(model, subjects=1)


@pytest.mark.slow
def test_the_real_network_finds_the_embedded_points_again(model):
    points, _ = find_landmarks468(model, subjects=3, seed=9)
    error = np.linalg.norm(
        np.asarray(positions(model, points)) - np.asarray(positions(model, model.landmarks468)), axis=1
    )
    # Other faces, other light: the network's own scatter is 1-2 mm, and the median is over 21 views.
    assert np.median(error) < 1.5


def test_projection_of_points_on_the_skin_leaves_them_there(model):
    places = np.asarray(positions(model, model.landmarks68))
    again = np.asarray(positions(model, project_points(model, places)))
    assert np.abs(again - places).max() < 0.05
