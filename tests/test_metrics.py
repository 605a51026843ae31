"""Metrics have the values that can be worked out by hand, and do not depend on where the prediction lies."""

import numpy as np
import pytest
from tiny_model import tiny_model

from facefit.metrics import landmark_rmse, nme_box, now_crop, surface_error
from facefit.model.proximity import closest_points
from facefit.model.registration import similarity, thin_plate


def test_landmark_metrics_of_a_known_offset():
    truth = np.random.default_rng(0).uniform(0, 100, (68, 2))
    assert landmark_rmse(truth + [3, 4], truth) == pytest.approx(5)
    assert nme_box(truth + [3, 4], truth, (10, 20, 60, 220)) == pytest.approx(
        5
    )  # 5 px of sqrt(50 * 200) = 100 px
    with pytest.raises(ValueError, match="no area"):
        nme_box(truth, truth, (10, 20, 10, 30))


def test_closest_points_agree_with_a_search_over_every_triangle():
    random = np.random.default_rng(1)
    vertices = random.normal(size=(40, 3)) * [10, 10, 1]
    faces = np.array(
        [random.choice(40, 3, replace=False) for _ in range(60)]
    )  # large and small triangles mixed
    points = random.normal(size=(50, 3)) * 12
    found = closest_points(points, vertices, faces, candidates=3)
    weights = random.dirichlet([0.4, 0.4, 0.4], 4000)
    sampled = np.einsum("sk,fkc->fsc", weights, vertices[faces]).reshape(-1, 3)
    brute = np.array([np.linalg.norm(sampled - p, axis=1).min() for p in points])
    assert (found.distance <= brute + 1e-9).all()  # never farther than the best of a dense sample
    assert (brute - found.distance).max() < 0.5  # the sample is that dense
    position = np.einsum("nk,nkc->nc", found.barycentric, vertices[faces[found.face]])
    np.testing.assert_allclose(position, found.position, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points - position, axis=1), found.distance, atol=1e-9)
    assert found.barycentric.min() >= -1e-12


def test_similarity_recovers_a_known_motion():
    random = np.random.default_rng(2)
    points = random.normal(size=(9, 3))
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    found = similarity(points, 2.5 * points @ turn.T + [1, 2, 3])
    assert found.scale == pytest.approx(2.5)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-12)
    np.testing.assert_allclose(found(points), 2.5 * points @ turn.T + [1, 2, 3], atol=1e-12)


def test_thin_plate_passes_through_its_points_and_keeps_affine_maps():
    random = np.random.default_rng(3)
    source, query = random.normal(size=(12, 3)), random.normal(size=(30, 3))
    target = source + random.normal(size=(12, 3)) * 0.3
    np.testing.assert_allclose(thin_plate(source, target, source), target, atol=1e-8)
    matrix = np.eye(3) + 0.2 * random.normal(size=(3, 3))
    np.testing.assert_allclose(thin_plate(source, source @ matrix, query), query @ matrix, atol=1e-8)


def test_a_face_moved_and_scaled_has_no_surface_error_but_keeps_its_metrical_one():
    model = tiny_model()
    mean, faces = np.asarray(model.mean, np.float64), np.asarray(model.faces)
    front = np.flatnonzero(mean[:, 2] > 40)
    seven = front[np.linspace(0, len(front) - 1, 7).astype(int)]
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    scan = 1.1 * mean @ turn.T + [5, -3, 200]
    noise = np.random.default_rng(4).normal(size=(7, 3)) * 2
    free = surface_error(mean, faces, mean[seven] + noise, scan[front], scan[seven])
    assert free.mean < 0.05  # the landmarks' noise of 2 mm must be gone
    # An egg of half axes 75, 110, 90 slides on itself hardly; scale comes back to a percent.
    assert free.alignment.scale == pytest.approx(1.1, abs=0.01)
    rigid = surface_error(mean, faces, mean[seven], scan[front], scan[seven], scale=False)
    assert rigid.mean > 0.5 and rigid.alignment.scale == 1.0


def test_now_crop_is_a_ball_about_the_middle_of_the_face():
    seven = np.float64(
        [[-45, 0, 0], [-15, 0, 0], [15, 0, 0], [45, 0, 0], [0, -40, 0], [-25, -70, 0], [25, -70, 0]]
    )
    radius = 0.7 * (90 + 40)
    centre = np.float64([0, -28, 0])
    points = centre + np.float64([[0, 0, radius - 0.1], [radius + 0.1, 0, 0]])
    np.testing.assert_array_equal(now_crop(points, seven), [True, False])
