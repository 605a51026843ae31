"""What other photographs tell of the skin, on photographs of known truth of which one shows a mark."""

import dataclasses

import cv2
import numpy as np
import pytest
from synthetic_subject import in_solver_terms, random_subject

from facefit.fit.observation import focal_groups, observe, sharing
from facefit.fit.paint import paint_from_others
from facefit.fit.placement import draw, place
from facefit.fit.settings import PRESETS
from facefit.fit.start import start
from facefit.fit.surface import fitting_surface
from facefit.model import find_model

SETTINGS = PRESETS["default"]
CHEEK, OTHER_CHEEK = 50, 280  # Face Mesh points


def paint(known, photographs, model):
    """At the truth, for each photograph, (N, V, 3), and the vertices beside both cheek points."""
    fitting = fitting_surface(model)
    groups = focal_groups(photographs)
    observations = sharing([observe(p, SETTINGS, None, g) for p, g in zip(photographs, groups)])
    guess = start(fitting, observations, SETTINGS)
    shared, views = in_solver_terms(known, observations, *guess)
    placed = [place(fitting, shared, view, seen) for view, seen in zip(views, observations)]
    drawn = [draw(fitting, SETTINGS, here) for here in placed]
    mean = np.asarray(fitting.surface.mean)
    corner = np.asarray(fitting.landmark_corner)
    spots = [np.linalg.norm(mean - mean[corner[i]].mean(0), axis=1) < 4 for i in (CHEEK, OTHER_CHEEK)]
    return np.stack(paint_from_others(fitting, shared, views, observations, placed, drawn)), spots


@pytest.fixture(scope="module")
def model():
    return find_model("open")


def test_a_mark_in_one_photograph_is_expected_in_the_others_and_not_in_its_own(model):
    known = random_subject(model, 2, seed=3)
    marked, plain = known.photographs
    pixels = marked.pixels.copy()
    centre = tuple(int(round(float(c) - 0.5)) for c in marked.landmarks468[CHEEK, :2])
    disc = cv2.circle(np.zeros(pixels.shape[:2], np.uint8), centre, 10, 1, -1) > 0
    pixels[disc] = (0.75 * pixels[disc]).astype(np.uint8)
    extra, (cheek, other) = paint(known, (dataclasses.replace(marked, pixels=pixels), plain), model)
    expected_in_plain, expected_in_marked = extra[1], extra[0]
    # A quarter off the sRGB value takes about half of the light.
    assert expected_in_plain[cheek].mean() < -0.03
    assert np.abs(expected_in_plain[other].mean()) < 0.015
    assert np.abs(expected_in_marked[cheek].mean()) < 0.015
