"""Surface points: where known faces have them, how the network finds them, and what it learns from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_devices import SIZE, random_batch
from flax import nnx
from tiny_model import tiny_model

from facefit.encoder.augmentation import NONE
from facefit.encoder.coefficients import coefficients
from facefit.encoder.losses import Weights, point_error, random_faces_term
from facefit.encoder.networks import PATCH, make_encoder, map_at, patches_at
from facefit.encoder.surface import encoder_surface
from facefit.encoder.surface_points import (
    SurfaceModel,
    draw_random_faces,
    random_faces,
    surface_model,
    true_points,
)
from facefit.encoder.training import make_step, optimizer, split, start_state
from facefit.model import at_points
from facefit.photo.face_crop import CROP_FOCAL, FACE_SHARE, NETWORK_SHARE
from facefit.synthesis import prepare_head, random_photo


@pytest.fixture(scope="module")
def tiny():
    model = tiny_model()
    return model, encoder_surface(model), make_encoder(model, 0, "small+landmarks", SIZE)


def test_true_points_of_a_synthetic_photograph_are_where_its_landmarks_are(tiny):
    model = tiny[0]
    photo = random_photo(prepare_head(model), (3, 1), (0,), 64)
    part = at_points(model, model.landmarks68)
    marks = SurfaceModel(*map(np.asarray, (part.mean, part.identity_basis, part.expression_basis)), (4, 3, 2))
    found = true_points(marks, vars(photo.truth), 64)
    np.testing.assert_allclose(found, photo.landmarks, atol=1e-3)  # float32 pixels


def test_patches_of_whole_pixels_are_slices_and_the_rest_is_told():
    picture = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    points = jnp.asarray([[[16.0, 11.0], [16.3, 10.8], [32.0, 0.0], [60.0, -9.0]]])
    cuts, rest = patches_at(picture, points)
    reach = PATCH // 2
    np.testing.assert_array_equal(
        cuts[0, 0].reshape(PATCH, PATCH, 3), picture[0, 11 - reach : 11 + reach, 16 - reach : 16 + reach]
    )
    np.testing.assert_array_equal(cuts[0, 1], cuts[0, 0])
    np.testing.assert_allclose(rest[0, :2], [[0, 0], [0.3, -0.2]], atol=1e-5)
    np.testing.assert_array_equal(cuts[0, 3], cuts[0, 2], "a point beyond the border sees the border")


def test_an_untrained_network_leaves_the_detectors_points_where_they_are(tiny):
    batch = random_batch(0)
    _, features = nnx.jit(lambda network, *seen: network(*seen))(tiny[2], batch.image, batch.dense)
    assert len(features.points) == 2
    for points in features.points:
        np.testing.assert_array_equal(points, batch.dense[..., :2])


@pytest.mark.parametrize("apart", [0.03, 30.0])
def test_point_error_counts_known_samples_in_hundredths_of_the_crop(apart):
    """By the square where it is small, by the length where it is large; the mean of the rounds."""
    batch = random_batch(1, labelled=0.5)

    def found(apart):
        away = np.where(batch.labelled, 0.0, 99.0)[:, None, None]
        return (batch.surface468 + away + apart * np.array([0.6, 0.8])).astype(np.float32)

    hundredths = 100 / SIZE * apart
    expected = hundredths**2 if apart < 1 else 2 * hundredths
    error, off = point_error([found(apart)], batch, SIZE)
    assert float(error) == pytest.approx(expected, rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(off[batch.labelled], axis=-1), apart, rtol=1e-3)
    assert not np.asarray(off)[~batch.labelled].any()
    first, _ = point_error([found(2 * apart)], batch, SIZE)
    both, last = point_error([found(2 * apart), found(apart)], batch, SIZE)
    assert float(both) == pytest.approx(0.5 * (float(first) + float(error)), rel=1e-5)
    np.testing.assert_array_equal(last, off)


def test_a_map_between_its_cells_is_bilinear_and_beyond_its_border_constant():
    rows, columns = np.mgrid[:8, :8]
    values = jnp.asarray(np.stack([columns, rows, 0 * rows + 7.0], -1)[None], jnp.float32)
    points = jnp.asarray([[[4.0, 12.0], [18.5, 31.0], [29.9, 2.1], [-5.0, 40.0]]])
    found = np.asarray(map_at(values, points, 32))[0]
    expected = np.clip(np.asarray(points[0]) / 4 - 0.5, 0, 7)
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-5)
    np.testing.assert_allclose(found[:, 2], 7.0, atol=1e-5)


def test_later_rounds_look_where_earlier_ones_moved_the_points(tiny):
    """A first round that moves every point by the same steps: the second sees what lies there."""
    refinement = make_encoder(tiny[0], 0, "small+landmarks", SIZE).refinement
    batch = random_batch(3)
    seen = jnp.zeros((len(batch.image), 512))
    shallow = jnp.zeros((len(batch.image), 4, 4, 64))
    refinement.move[...] = refinement.move[...].at[1].set(0.1)  # the second moves by what it sees

    def last(dense):
        return refinement(batch.image, dense, shallow, seen, lambda points: jnp.zeros((len(points), 128)))[0]

    refinement.shift[0].bias[...] = jnp.tile(jnp.asarray([3.0, -2.0]), 468)
    plain = last(batch.dense)
    refinement.shift[0].bias[...] = jnp.zeros(2 * 468)
    moved = last(batch.dense + np.float32([3.0, -2.0, 0.0]))
    np.testing.assert_allclose(plain[0], batch.dense[..., :2] + np.float32([3.0, -2.0]), atol=1e-5)
    assert np.abs(np.asarray(plain[1] - plain[0])).max() > 0.01
    np.testing.assert_allclose(plain[1], moved[1], atol=1e-4)


def test_random_faces_lie_in_the_crop_as_the_crop_rule_says(tiny):
    model = tiny[0]
    faces = random_faces(model, 0)
    alone = faces.replace(dense=faces.marks)  # the landmarks' own places
    identity, expression, points = draw_random_faces(alone, jax.random.key(1), 64, SIZE, NONE)
    low, high = points.min(1), points.max(1)
    np.testing.assert_allclose((high - low).max(-1) / SIZE, FACE_SHARE, rtol=1e-4)
    np.testing.assert_allclose((high + low) / 2, SIZE / 2, atol=1e-3)
    again = draw_random_faces(alone, jax.random.key(1), 64, SIZE, NONE)
    np.testing.assert_array_equal(points, again[2])
    assert identity.std() == pytest.approx(1, abs=0.15) and expression.shape == (64, 3)


def test_random_faces_agree_with_true_points(tiny):
    """One face through both: the camera that puts it there is found from the landmarks' box."""
    model, size = tiny[0], 64
    faces = random_faces(model, 0)
    faces = faces.replace(
        expression=faces.expression[:1], turn=faces.turn[:1], distance=jnp.asarray([900.0], jnp.float32)
    )
    key = jax.random.key(5)
    identity, expression, points = draw_random_faces(faces, key, 1, size, NONE)
    marks = draw_random_faces(faces.replace(dense=faces.marks), key, 1, size, NONE)[2]
    turn = np.asarray(faces.turn[0], np.float64)
    part = at_points(model, model.landmarks68)
    shape = np.asarray(part.mean + jnp.tensordot(identity[0], part.identity_basis, 1))
    shape = (shape + np.tensordot(expression[0], np.asarray(part.expression_basis), 1)) * [1, -1, -1] @ turn.T
    away = shape - shape.mean(0) + [0, 0, 900.0]
    plane = away[:, :2] / away[:, 2:]
    focal = float(np.ptp(np.asarray(marks[0]), 0).max() / np.ptp(plane, 0).max())
    aside = np.append((np.asarray(marks[0]) - size / 2 - focal * plane).mean(0) / focal, 0.0)
    # A shift in the picture is one of the head, times its depth; points lie at different depths: small ones.
    truth = {
        "identity": np.asarray(identity[0]),
        "expression": np.asarray(expression[0]),
        "rotation": np.asarray(_axis_angle(turn), np.float32),
        "focal": np.float32(focal),
        "translation": (-shape.mean(0) + [0, 0, 900.0]) * [1, 1, CROP_FOCAL * NETWORK_SHARE * size / focal],
    }
    found = true_points(surface_model(model), truth, size) + focal * aside[:2]
    np.testing.assert_allclose(found, points[0], atol=2e-3)


def _axis_angle(turn):
    from facefit.rotations import axis_angle_from_matrix

    return axis_angle_from_matrix(jnp.asarray(turn, jnp.float32))


def test_faces_known_exactly_have_no_error_and_the_mean_face_has_its_distance(tiny):
    model, surface, encoder = tiny
    identity, expression = jax.random.normal(jax.random.key(2), (5, 4)), jnp.full((5, 3), 0.2)
    found = coefficients(encoder.from_points(jnp.zeros((5, 468, 2))), surface.start)
    exact = found.replace(identity=identity, expression=expression)
    assert float(random_faces_term(surface, exact, identity, expression)) == 0.0
    error = float(random_faces_term(surface, exact.replace(identity=0 * identity), identity, expression))
    both = np.concatenate([identity, np.zeros((5, 3))], 1)
    metrics = np.asarray(surface.identity_metric), np.asarray(surface.geometry_metric)
    expected = np.einsum("bi,ij,bj->b", identity, metrics[0], identity).mean()
    expected += 0.5 * np.einsum("bi,ij,bj->b", both, metrics[1], both).mean()
    assert error == pytest.approx(expected, rel=1e-4)


def test_steps_without_photographs_learn_shape_from_points_and_leave_the_statistics(tiny):
    model, surface, encoder = tiny
    adam, faces = optimizer(1e-3), random_faces(model, 0)
    step = make_step(split(encoder)[0], adam, SIZE, rendering=False)
    state = jax.tree.map(jnp.copy, start_state(encoder, adam))
    before = jax.tree.map(np.asarray, state.statistics)
    errors = []
    for _ in range(60):
        state, report = step(state, surface, Weights(random_faces=1.0), None, faces)
        errors.append(float(report.terms["random_faces"]))
    assert list(report.terms) == ["random_faces"] and bool(report.finite)
    assert np.mean(errors[-5:]) < 0.6 * errors[0]
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, state.statistics), before)
