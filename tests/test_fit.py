"""Fitting from end to end on photographs whose truth is known exactly: renderings of the embedded model."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic_subject import FOCAL, random_subject

from facefit.errors import InputError
from facefit.fit.settings import PRESETS
from facefit.fit.subject import fit_subject
from facefit.model import find_model, vertices
from facefit.render import irradiance

SEEDS = (0, 1)
EXACT = PRESETS["fast"].replace(identity_kept=1.0)  # the landmarks have no errors here


@pytest.fixture(scope="module")
def model():
    return find_model("open")


@pytest.fixture(scope="module")
def subjects(model):
    return {seed: random_subject(model, 3, seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def fits(model, subjects):
    """Of each subject: the first photograph alone, the second alone, and all three together."""
    return {
        seed: [
            fit_subject(photographs, model, EXACT)
            for photographs in (
                known.photographs[:1],
                known.photographs[1:2],
                known.photographs,
            )
        ]
        for seed, known in subjects.items()
    }


def face_error(model, identity, truth) -> float:
    """RMS distance of the neutral face's skin from the true one's after similarity alignment, millimetres."""
    points = jax.jit(vertices)
    zero = jnp.zeros(model.expression_basis.shape[0])
    regions = {name: np.asarray(region) for name, region in model.regions.items()}
    face = (regions["skin"] > 0.5) & (np.asarray(model.mean)[:, 2] > 30)
    face &= np.max([regions[name] for name in ("neck", "ears", "scalp")], axis=0) < 0.5
    a, b = (np.asarray(points(model, jnp.asarray(c), zero), np.float64)[face] for c in (identity, truth))
    a, b = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    return float(np.sqrt(np.mean(np.sum((a @ u @ vt * s.sum() / (a**2).sum() - b) ** 2, -1))))


def outer_eyes(points) -> float:
    return float(np.linalg.norm(points[36] - points[45]))


@pytest.mark.parametrize("seed", SEEDS)
def test_landmarks_and_pose_are_recovered(subjects, fits, seed):
    known = subjects[seed]
    for fit, photographs in zip(fits[seed], ([0], [1], [0, 1, 2]), strict=True):
        assert len(fit.views) == len(photographs)
        for view, n in zip(fit.views, photographs, strict=True):
            truth = jax.tree.map(lambda leaf, n=n: np.asarray(leaf[n]), known.parameters.views)
            assert view.outcome == "fitted"
            assert view.file == f"view{n}.png"
            # The 68 were never shown to the fit; the 468 were. 3 % of the outer eye distance is 2.7 mm.
            error = np.linalg.norm(view.landmarks68 - known.landmarks68[n], axis=-1)
            assert np.sqrt(np.mean(error**2)) < 0.03 * outer_eyes(known.landmarks68[n])
            assert view.landmark_rmse_percent < 2.5
            assert np.linalg.norm(view.rotation - truth.rotation) < 0.08  # 4.6 degrees
            assert view.focal_px == pytest.approx(FOCAL, rel=0.1)  # from EXIF
            assert view.translation[2] == pytest.approx(truth.translation[2], rel=0.08)
            assert np.abs(view.translation - truth.translation)[:2].max() < 10


@pytest.mark.parametrize("seed", SEEDS)
def test_identity_is_nearer_to_the_truth_than_the_mean_face_and_nearest_with_three_views(
    model, subjects, fits, seed
):
    truth = subjects[seed].parameters.identity
    mean = face_error(model, jnp.zeros_like(truth), truth)
    frontal, side, together = (face_error(model, fit.identity, truth) for fit in fits[seed])
    assert mean > 1.5  # the subject is not the mean face by chance
    assert max(frontal, side) < 0.85 * mean
    assert together < 0.65 * mean
    assert together < 0.97 * min(frontal, side)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_light_and_the_skin_explain_the_colors_together(model, subjects, fits, seed):
    """Albedo and light cannot be told apart fully; their product must be right."""
    known, fit = subjects[seed], fits[seed][2]
    skin = np.asarray(model.regions["skin"]) > 0.9
    # Normals within 50 degrees of the camera, the way light comes from matters only there.
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(-0.5, 0.5, 5), np.linspace(-0.5, 0.5, 5)))
    normals = np.stack([x, y, -np.sqrt(1 - x**2 - y**2)], -1).astype(np.float32)

    def tone(albedo, lighting):
        colors = model.albedo_mean + jnp.tensordot(jnp.asarray(albedo), model.albedo_basis, axes=1)
        return np.asarray(colors)[skin].mean(0) * np.asarray(irradiance(normals, lighting)).mean(0)

    for view, lighting in zip(fit.views, known.parameters.views.lighting, strict=True):
        np.testing.assert_allclose(
            tone(fit.albedo, view.lighting), tone(known.parameters.albedo, lighting), rtol=0.08
        )


def test_dark_skin_is_found_in_as_many_steps_as_light_skin(model):
    """From the mean face's skin a solver step towards dark skin would end beyond black."""
    known = random_subject(model, 1, seed=3, skin_tone=0.12)
    steps = PRESETS["default"].photometric_steps
    fit = fit_subject(known.photographs, model, PRESETS["fast"].replace(photometric_steps=steps))
    skin = np.asarray(model.regions["skin"]) > 0.9

    def tone(albedo):
        return (model.albedo_mean + np.tensordot(albedo, model.albedo_basis, axes=1))[skin].mean(0)

    truth = tone(known.parameters.albedo)
    assert truth.max() < 0.1  # it is dark
    np.testing.assert_allclose(tone(fit.albedo), truth, atol=0.03)
    settled = fit_subject(known.photographs, model, PRESETS["fast"].replace(photometric_steps=24))
    ours, best = (f.views[0].energies["photometric"] for f in (fit, settled))
    assert ours < 1.05 * best + 1.0


def test_of_a_doubtful_identity_a_part_is_kept_and_the_views_make_up_for_it(model, subjects, fits):
    known, certain = subjects[1].photographs, fits[1][2]
    kept = fit_subject(known, model, EXACT.replace(identity_kept=0.5))
    left = fit_subject(known, model, EXACT.replace(identity_kept=0.5, final_steps=0))
    np.testing.assert_array_equal(kept.identity, left.identity)
    np.testing.assert_allclose(kept.identity, 0.5 * certain.identity, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kept.albedo, certain.albedo, rtol=1e-4, atol=1e-5)
    for mine, other in zip(kept.views, left.views, strict=True):
        assert mine.focal_px == pytest.approx(other.focal_px, rel=1e-5)
        assert mine.landmark_rmse_percent < other.landmark_rmse_percent
        assert mine.energies["photometric"] < 0.9 * other.energies["photometric"]


def test_the_same_photographs_give_the_same_fit(model, subjects, fits):
    again = fit_subject(subjects[0].photographs, model, EXACT)
    first = fits[0][2]
    np.testing.assert_array_equal(again.identity, first.identity)
    np.testing.assert_array_equal(again.albedo, first.albedo)
    for a, b in zip(again.views, first.views, strict=True):
        np.testing.assert_array_equal(a.landmarks68, b.landmarks68)
        np.testing.assert_array_equal(a.expression, b.expression)


def test_the_order_of_the_photographs_does_not_matter(model, subjects, fits):
    known, straight = subjects[1], fits[1][2]
    turned = fit_subject(known.photographs[::-1], model, EXACT)
    # Sums in another order, amplified by twenty steps of an optimisation that is not run to its end.
    difference = np.abs(turned.identity - straight.identity).max()
    assert difference < 0.05 * np.abs(straight.identity).max()
    assert [view.file for view in turned.views] == ["view2.png", "view1.png", "view0.png"]


class _Compilations(logging.Handler):
    """The names of what JAX compiles."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.names = []

    def emit(self, record):
        message = record.getMessage()
        if message.startswith("Compiling"):
            self.names.append(message[:90])


def compiled_during(call) -> list[str]:
    handler, logger = _Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            call()
    finally:
        logger.removeHandler(handler)
    return handler.names


def test_nothing_is_compiled_from_photo_to_photo(model, subjects, fits):
    """Another person in a picture of another size, after a first one was fitted."""
    photograph = subjects[1].photographs[0]
    smaller = dataclasses.replace(photograph, pixels=photograph.pixels[10:-14, 21:-3])
    moved = photograph.landmarks468 - np.float32([21, 10, 0])
    smaller = dataclasses.replace(smaller, landmarks468=moved, exif_focal_px=None)
    assert compiled_during(lambda: jax.jit(lambda x: x * 3 + 1)(jnp.zeros(7)))  # the log is read rightly
    assert compiled_during(lambda: fit_subject([smaller], model, "fast")) == []


def test_sixty_eight_points_of_the_user_are_enough(model, subjects):
    photograph = subjects[0].photographs[0]
    sparse = dataclasses.replace(
        photograph,
        landmarks468=None,
        landmarks68=subjects[0].landmarks68[0],
        landmarks68_source="user",
    )
    (view,) = fit_subject([sparse], model, "fast").views
    truth = np.asarray(subjects[0].parameters.views.rotation[0])
    assert view.landmark_rmse_percent < 2.5
    assert np.linalg.norm(view.rotation - truth) < 0.1


def test_a_hand_before_the_face_hardly_moves_it(model, subjects, fits):
    """A grey block over a fifth of the face: skin weight and robust residuals leave it out."""
    known = subjects[0]
    photograph = known.photographs[0]
    x, y = known.landmarks68[0][48]  # a corner of the mouth
    size = outer_eyes(known.landmarks68[0]) / 3
    pixels = photograph.pixels.copy()
    pixels[int(y - size) : int(y + size), int(x - size) : int(x + size)] = (90, 100, 110)
    hidden = fit_subject([dataclasses.replace(photograph, pixels=pixels)], model, EXACT)
    plain = fits[0][0]
    moved = face_error(model, hidden.identity, plain.identity)
    assert moved < 0.35 * face_error(model, np.zeros_like(plain.identity), plain.identity)
    np.testing.assert_allclose(hidden.views[0].landmarks68, plain.views[0].landmarks68, atol=1.5)


def test_a_known_focal_length_is_kept(model, subjects):
    fit = fit_subject(subjects[0].photographs[:1], model, "fast", focal_px=900.0)
    assert fit.views[0].focal_px == pytest.approx(900, rel=0.03)


def test_progress_runs_from_nothing_to_done(model, subjects):
    told = []
    fit = fit_subject(
        subjects[0].photographs[:1], model, "fast", progress=lambda stage, fraction: told.append(fraction)
    )
    assert told == sorted(told) and told[0] == 0 and told[-1] == 1
    assert fit.report["converged"] and fit.report["landmark_rmse_px"] < 3


def test_callers_mistakes_are_named(model, subjects):
    with pytest.raises(InputError, match="no photograph"):
        fit_subject([], model)
    with pytest.raises(InputError, match="'quick'.*fast"):
        fit_subject(subjects[0].photographs[:1], model, "quick")
    assert {"fast", "default", "best"} <= set(PRESETS)
