"""Transfer between models finds the same place on another topology."""

import numpy as np
import pytest
import trimesh
from tiny_model import tiny_model

from facefit.model.npz import as_jax
from facefit.model.proximity import closest_points
from facefit.model.records import SurfacePoints
from facefit.model.transfer import complete, positions, vertex_map, warp_onto


@pytest.fixture(scope="module")
def pair():
    """The tiny head, and a finer one of another identity, turned, moved, enlarged; 68 points known."""
    source = tiny_model(subdivisions=3)
    fine = trimesh.Trimesh(np.asarray(source.mean), np.asarray(source.faces), process=False).subdivide()
    faces = np.asarray(fine.faces, np.int32)
    grown = np.asarray(fine.vertices, np.float64)
    bent = grown * [1.05, 0.95, 1.0] + 4 * np.sin(grown[:, [1, 2, 0]] / 40)
    turn = np.array([[0.96, 0, 0.28], [0, 1, 0], [-0.28, 0, 0.96]])

    def carry(points):
        moved = points * [1.05, 0.95, 1.0] + 4 * np.sin(points[:, [1, 2, 0]] / 40)
        return 1.2 * moved @ turn.T + [10, 20, 30]

    mean = (1.2 * bent @ turn.T + [10, 20, 30]).astype(np.float32)
    found = closest_points(carry(positions(source, source.landmarks68)), mean, faces)
    marks = SurfacePoints(found.face.astype(np.int32), found.barycentric.astype(np.float32))
    zero = np.zeros(len(mean), np.float32)
    target = as_jax(
        source.replace(
            mean=mean,
            identity_basis=np.zeros((1, *mean.shape), np.float32),
            expression_basis=np.zeros((3, *mean.shape), np.float32),
            albedo_mean=np.full_like(mean, 0.5),
            albedo_basis=np.zeros((1, *mean.shape), np.float32),
            faces=faces,
            uv_faces=np.zeros_like(faces),
            landmarks68=marks,
            regions={name: zero for name in source.regions},
        )
    )
    return source, target, carry


def test_vertices_are_mapped_to_where_they_came_from(pair):
    source, target, carry = pair
    match = vertex_map(source, target)
    corners = np.asarray(source.faces)[match.face]
    came = carry(np.einsum("nk,nkc->nc", match.barycentric, np.asarray(source.mean, np.float64)[corners]))
    error = np.linalg.norm(came - np.asarray(target.mean), axis=1)
    front = positions(source, source.landmarks68).mean(0)
    near = np.linalg.norm(np.asarray(source.mean)[corners[:, 0]] - front, axis=1) < 60
    # 68 random points on the front pin the warp to a few millimetres of a head 260 mm high.
    assert np.median(error[near]) < 2.5
    assert np.quantile(error[near], 0.95) < 7


def test_the_warp_ends_on_the_target(pair):
    source, target, _ = pair
    warped = warp_onto(source, target)
    distance = closest_points(warped, np.asarray(target.mean), np.asarray(target.faces)).distance
    assert np.median(distance) < 1.0  # of a head of 260 mm; the fit is smooth, not exact


def test_fields_arrive_and_the_rest_stays(pair):
    source, target, carry = pair
    source = source.replace(
        regions={**source.regions, "lips": (np.asarray(source.mean)[:, 1] > 0).astype(np.float32)}
    )
    full = complete(target, source, ("landmarks468", "albedo", "regions"))
    dense = np.linalg.norm(
        positions(full, full.landmarks468) - carry(positions(source, source.landmarks468)), axis=1
    )
    assert np.median(dense) < 2.5
    assert full.albedo_basis.shape == (2, len(target.mean), 3)
    assert np.asarray(full.albedo_mean).std() > 0.01
    up = np.asarray(full.regions["lips"])[np.asarray(target.mean)[:, 1] > 60]
    assert up.mean() > 0.95
    np.testing.assert_array_equal(full.mean, target.mean)
    with pytest.raises(ValueError, match="uv"):
        complete(target, source, ("uv",))
