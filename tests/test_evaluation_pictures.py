"""Curves and pictures of an evaluation show what was measured."""

import json
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from encoder_devices import SIZE, random_batch
from tiny_model import tiny_model

from experiments.curves import draw_curves, read_log, smoothed
from experiments.evaluate_encoder import known_faces
from experiments.geometry_picture import error_colors, geometry_picture
from facefit.encoder.coefficients import Coefficients
from facefit.encoder.losses import draw, project_landmarks
from facefit.encoder.surface import encoder_surface
from facefit.encoder.validation import aligned_neutral, evaluate, neutral_errors
from facefit.errors import InputError

SIDE = 96


def write_log(folder):
    lines = [{"step": k, "total": 1 / k, "landmarks": 2.0, "seconds": 0.1} for k in range(1, 41)]
    for step in (20, 40):
        figures = {"neutral_mm": 2.0 - step / 40, "mean_face_mm": 2.5, "photographs": 8.0}
        lines.append({"step": step, "evaluation": "labelled"} | figures)
    lines.append({"step": 40, "evaluation": "photographs", "nme_percent": 2.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text + '{"step": 41, "tot')  # the process was killed while it wrote


def test_a_log_is_read_as_curves_by_term_and_by_kind_of_data(tmp_path):
    write_log(tmp_path)
    terms, figures = read_log(tmp_path / "log.jsonl")
    assert set(terms) == {"total", "landmarks"}
    assert {name: set(kinds) for name, kinds in figures.items()} == {
        "neutral_mm": {"labelled"},
        "mean_face_mm": {"labelled"},
        "nme_percent": {"photographs"},
    }
    np.testing.assert_array_equal(figures["neutral_mm"]["labelled"].values, [1.5, 1.0])
    np.testing.assert_array_equal(terms["total"].steps, np.arange(1, 41))
    np.testing.assert_allclose(smoothed(terms["landmarks"]).values, 2.0)
    assert np.ptp(smoothed(terms["total"]).values) < np.ptp(terms["total"].values)


def test_curves_are_drawn_from_a_log(tmp_path):
    pytest.importorskip("matplotlib")
    write_log(tmp_path)
    assert draw_curves(tmp_path)
    picture = cv2.imread(str(tmp_path / "curves.png"))
    # Four panels in a row: three held-out figures' and terms' lines are there, in colours.
    assert picture.shape[1] > 3 * picture.shape[0]
    assert (np.ptp(picture.astype(int), axis=2) > 60).sum() > 200


def test_curves_of_no_run_are_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="no log"):
        draw_curves(tmp_path)


def test_colors_of_errors_begin_grey_and_grow_darker_in_equal_steps():
    lab = cv2.cvtColor(error_colors(np.linspace(0, 5, 101))[None], cv2.COLOR_LRGB2Lab)[0]
    assert np.abs(lab[0, 1:]).max() < 1 and lab[0, 0] > 85
    assert np.all(np.diff(lab[:, 0]) < 0)
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    # Equal but where a step cuts a corner, and for colours outside of sRGB, which are clipped.
    assert steps.std() / steps.mean() < 0.25
    np.testing.assert_array_equal(error_colors(np.float32([9.0])), error_colors(np.float32([5.0])))


def saturation(picture):
    """Difference of the largest and smallest channel."""
    return np.ptp(picture.astype(int), axis=-1)


def test_the_picture_of_geometry_is_colored_where_the_faces_differ_and_only_there():
    model = tiny_model()
    surface = encoder_surface(model)
    frontal = np.asarray(surface.frontal)
    truth = np.float32([[1.0, -1.0, 0.5, 0.0]] * 2)
    predicted = truth + np.float32([[0.0] * 4, [2.0, 0.0, -2.0, 1.0]])
    photographs = np.full((2, 32, 32, 3), 0.5, np.float32)
    picture = geometry_picture(model, frontal, photographs, predicted, truth, SIDE)
    top = picture.shape[0] - 2 * SIDE
    assert 20 < top < 60 and picture.shape[1] > 7 * SIDE
    rows = [picture[top + k * SIDE : top + (k + 1) * SIDE, : 7 * SIDE] for k in range(2)]
    assert np.abs(rows[0][:, :SIDE].astype(int) - 128).max() <= 1  # the photograph
    true, found, error = (rows[0][:, a * SIDE : b * SIDE] for a, b in ((1, 3), (3, 5), (5, 7)))
    # The same face after the similarity of a face with itself, to rounding.
    assert np.abs(true.astype(int) - found).mean() < 0.1
    assert saturation(rows[0]).max() <= 3
    assert (saturation(rows[1][:, 5 * SIDE :]) > 30).mean() > 0.05
    assert saturation(rows[1][:, : 5 * SIDE]).max() <= 3
    assert np.abs(error.astype(int) - found).max() > 20  # light grey where it is measured, clay elsewhere


def test_the_drawn_distances_are_those_that_are_measured():
    model = tiny_model()
    frontal = np.asarray(encoder_surface(model).frontal)
    truth, predicted = np.random.default_rng(0).normal(size=(2, 1, 4))
    moved, wanted, distances = aligned_neutral(model, frontal, predicted[0], truth[0])
    assert moved.shape == wanted.shape == np.shape(model.mean)
    measured = neutral_errors(model, frontal, predicted, truth)
    np.testing.assert_allclose(distances.mean(), measured[0], rtol=1e-6)


def test_known_faces_are_the_first_ones_of_different_persons():
    batch = random_batch(0)  # the first half is labelled
    batch = batch.replace(subject=np.int32([7, 7, 8, 9, 1, 2, 3, 4]))

    def predict(image, dense):
        return SimpleNamespace(identity=image[:, 0, :4, 0])

    photographs, predicted, truth = known_faces([batch], predict, 2)
    np.testing.assert_array_equal(photographs, batch.image[[0, 2]])
    np.testing.assert_array_equal(predicted, batch.image[[0, 2], 0, :4, 0])
    np.testing.assert_array_equal(truth, batch.identity[[0, 2]])
    assert known_faces([batch.replace(labelled=np.zeros(8, bool))], predict, 2) is None


def test_a_drawing_of_the_photograph_itself_has_no_photometric_error():
    model = tiny_model()
    surface, random = encoder_surface(model), np.random.default_rng(1)
    batch = random_batch(0)
    start, count = surface.start, len(batch.subject)
    found = Coefficients(
        identity=random.normal(size=(count, 4)).astype(np.float32),
        expression=np.zeros((count, 3), np.float32),
        albedo=batch.albedo,
        lighting=np.tile(start.lighting, (count, 1, 1)),
        rotation=np.zeros((count, 3), np.float32),
        translation=np.tile(start.translation, (count, 1)),
    )
    drawn = jax.vmap(draw, in_axes=(None, 0, None))(surface, found, SIZE)
    batch = batch.replace(image=np.asarray(drawn.image), landmarks=project_landmarks(surface, found, SIZE))

    def describe(image, landmarks):
        return image.reshape(count, -1)

    def figures(image):
        seen = [batch.replace(image=image)]
        return evaluate(model, surface, lambda image, dense: found, seen, SIZE, True, describe)

    same, other = figures(batch.image), figures(1.0 - batch.image)
    assert same["photometric"] == pytest.approx(1e-3, rel=1e-3)  # the root of the loss's floor of 1e-6
    assert same["identity_similarity"] == pytest.approx(1.0, abs=1e-5)
    assert same["nme_percent"] < 1e-3 and same["albedo_rms"] < 1e-6
    assert other["photometric"] > 0.1 and other["identity_similarity"] < 0.9
