"""Where fits start: the pose that landmarks give, and the face where it was estimated before."""

import json
from pathlib import Path
from typing import get_args, get_type_hints

import cv2
import numpy as np
import pytest
from synthetic_subject import random_subject
from tiny_model import tiny_model

import facefit
from facefit import starts
from facefit.cli import main
from facefit.cli.arguments import Fit as FitArguments
from facefit.errors import InputError
from facefit.fit.estimate import Estimate
from facefit.fit.observation import observe, sharing
from facefit.fit.placement import points_of
from facefit.fit.settings import PRESETS
from facefit.fit.start import in_perspective, start
from facefit.fit.state import camera
from facefit.fit.subject import fit_subject
from facefit.fit.surface import fitting_surface
from facefit.model import find_model
from facefit.model.registration import similarity
from facefit.prediction import encoder_start
from facefit.render import intrinsics, project, to_camera

SAMPLE = Path(__file__).resolve().parents[1] / "facefit" / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def model():
    return find_model("open")


@pytest.fixture(scope="module")
def known(model):
    return random_subject(model, 3, seed=1)


def energy(fit: facefit.Fit) -> float:
    """All that the views' terms and the priors of identity and albedo charge."""
    charged = sum(sum(view.energies.values()) for view in fit.views)
    return charged + float(np.sum(fit.identity**2) + np.sum(fit.albedo**2))


@pytest.mark.parametrize("aside", [0.0, 0.4])
def test_a_face_aside_the_middle_is_looked_at_from_aside(aside):
    """Points of a face's size, seen from 900 mm along a ray `aside` from the camera's axis (tangent)."""
    random = np.random.default_rng(0)
    points = random.uniform(-60, 60, (200, 3)) * [1, 1, 0.6] + [0, 0, -80]
    rotation = cv2.Rodrigues(np.array([0.1, -0.2, 0.05]))[0]
    translation, focal = np.array([aside * 600, aside * 700, 900.0]), 500.0
    placed = points @ rotation.T + translation
    seen = focal * placed[:, :2] / placed[:, 2:]
    unit = focal / placed[:, 2].mean()
    # Depth as the network gives it: along the ray.
    ray = placed.mean(0) / np.linalg.norm(placed.mean(0))
    found = similarity(points, np.concatenate([seen, unit * (placed @ ray)[:, None]], -1))
    middle = points.mean(0)
    shown = found.scale * (found.rotation @ middle)[:2] + found.translation[:2]
    turned, moved = in_perspective(found.scale, found.rotation, middle, shown, focal)
    error = np.linalg.norm(cv2.Rodrigues(turned.T @ rotation)[0])
    before = np.linalg.norm(cv2.Rodrigues(found.rotation.T @ rotation)[0])
    again = points @ turned.T + moved
    apart = focal * again[:, :2] / again[:, 2:] - seen
    assert error < 0.25 * before
    # The nearer points of a face of 120 mm at 900 are a tenth larger than the farther ones.
    assert np.sqrt((apart**2).sum(-1).mean()) < 0.03 * unit * 90
    np.testing.assert_allclose(moved, translation, rtol=0.06, atol=5)


def test_the_true_face_starts_nearer_to_the_landmarks_than_the_mean_face(model, known):
    truth = known.parameters
    estimate = Estimate(
        np.asarray(truth.identity),
        np.asarray(truth.albedo),
        np.asarray(truth.views.expression),
        np.asarray(truth.views.lighting),
        "the truth",
    )
    fitting, settings = fitting_surface(model), PRESETS["fast"]
    seen = sharing([observe(photograph, settings, None, 0) for photograph in known.photographs])

    def miss(estimate) -> list[float]:
        """Distance of the projected landmarks from the detected ones, outer-eye distances."""
        shared, views = start(fitting, seen, settings, estimate)
        missed = []
        for view, one in zip(views, seen, strict=True):
            focal, translation = camera(shared.log_focal[one.focal_group], view.pose, one)
            placed = to_camera(points_of(fitting.landmarks, shared, view), view.pose.rotation, translation)
            apart = project(placed, intrinsics(focal, one.principal))[:468] - one.points468[:, :2]
            missed.append(float(np.sqrt(np.mean(np.sum(apart**2, -1))) / one.unit))
        return missed

    # What a parallel projection cannot tell of the photographs' perspective, and the detector's noise.
    assert max(miss(estimate)) < 0.04
    assert np.mean(miss(estimate)) < 0.85 * np.mean(miss(None))


@pytest.mark.slow
def test_a_fit_from_the_encoder_ends_about_where_one_from_landmarks_does(tmp_path):
    plain = facefit.fit(SAMPLE, preset="fast")
    command = ["fit", str(SAMPLE), "-o", str(tmp_path), "--preset", "fast", "--start", "encoder"]
    assert main(command) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["start"] == "encoder" and summary["photos"][0]["outcome"] == "fitted"
    assert plain.report["start"] == "landmarks"
    # Neither has run to the end, so that either may be the lower one.
    assert energy(facefit.Fit.load(tmp_path)) < 1.1 * energy(plain)


def test_photographs_of_one_person_are_fitted_from_their_common_estimate(model, known):
    estimate = encoder_start(model)(known.photographs)
    assert estimate.expressions.shape == (3, len(model.expression_basis))
    plain = fit_subject(known.photographs, model, "fast")
    fit = fit_subject(known.photographs, model, "fast", estimate=estimate)
    assert fit.report["start"] == "encoder"
    assert [view.outcome for view in fit.views] == ["fitted"] * 3
    assert energy(fit) < 1.1 * energy(plain)
    away = [np.linalg.norm(one.identity - known.parameters.identity) for one in (fit, plain)]
    assert away[0] < 1.1 * away[1]


def test_an_estimate_takes_fewer_steps_and_is_not_moved_without_any(model, known):
    estimate = encoder_start(model)(known.photographs[:1])
    still = PRESETS["fast"].replace(estimated_landmark_steps=0, photometric_steps=0, identity_kept=1.0)
    fit = fit_subject(known.photographs[:1], model, still, estimate=estimate)
    np.testing.assert_array_equal(fit.identity, estimate.identity)
    for settings in PRESETS.values():
        assert settings.estimated_landmark_steps < settings.landmark_steps
        assert settings.estimated_photometric_steps < settings.photometric_steps


def test_starts_that_cannot_be_are_refused(model, known):
    with pytest.raises(InputError, match="'nose'.*landmarks, encoder"):
        facefit.fit(SAMPLE, start="nose")
    with pytest.raises(InputError, match="the model open.*the model given is tiny.*from landmarks"):
        facefit.fit(SAMPLE, tiny_model(), start="encoder")
    estimate = encoder_start(model)(known.photographs[:1])
    with pytest.raises(InputError, match="2 photographs.*from these photographs"):
        fit_subject(known.photographs[:2], model, "fast", estimate=estimate)


def test_the_command_line_knows_every_start():
    assert get_args(get_type_hints(FitArguments)["start"]) == starts.names()
