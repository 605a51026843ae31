"""The fit's residuals and their hand-assembled derivatives, on the embedded model and a photograph of known
truth.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from synthetic_subject import FOCAL, in_solver_terms, random_subject

from facefit.fit.derivatives import flatten, sweep
from facefit.fit.landmark_terms import correspond, landmark_terms, linearize_landmark_terms
from facefit.fit.observation import observe, sharing
from facefit.fit.pixel_terms import choose_pixels, linearize_pixel_terms, pixel_terms
from facefit.fit.placement import draw, place
from facefit.fit.settings import PRESETS
from facefit.fit.start import start
from facefit.fit.state import camera
from facefit.fit.surface import fitting_surface
from facefit.model import find_model, surface_points, vertices

SETTINGS = dataclasses.replace(PRESETS["default"], pixels=160, crop_px=40, depth_count=30.0)


@pytest.fixture(scope="module")
def case():
    """What the solver is given for one photograph, and the truth in the solver's own parameters."""
    model = find_model("open")
    known = random_subject(model, 1, seed=5, sparse=True)
    fitting = fitting_surface(model)
    observations = sharing([observe(known.photographs[0], SETTINGS, None, 0)])
    shared, views = start(fitting, observations, SETTINGS)
    true_shared, true_views = in_solver_terms(known, observations, shared, views)
    return {
        "fitting": fitting,
        "seen": jax.device_put(observations[0]),
        "start": (shared, views[0]),
        "truth": (true_shared, true_views[0]),
        "translation": known.parameters.views.translation[0],
    }


@pytest.fixture(scope="module")
def prepared(case):
    """What is held fixed at a place: landmarks' points, and pixels."""
    fitting, seen = case["fitting"], case["seen"]

    @jax.jit
    def fixed(shared, view):
        placed = place(fitting, shared, view, seen)
        none = jnp.zeros_like(fitting.surface.mean)
        return correspond(fitting, SETTINGS, seen, placed), choose_pixels(
            fitting, SETTINGS, seen, placed, draw(fitting, SETTINGS, placed), none
        )

    return lambda where: fixed(*where)


def terms(case, where, fixed):
    """Every residual by name."""
    points, pixels = fixed
    found = landmark_terms(case["fitting"], SETTINGS, *where, case["seen"], points)
    return found | pixel_terms(SETTINGS, *where, case["seen"], pixels)


@pytest.fixture(scope="module")
def terms_at(case):
    """`terms`, with what is held fixed prepared elsewhere."""
    return jax.jit(lambda where, fixed: terms(case, where, fixed))


def disturbed(place, seed: int):
    """A place a little off in every single parameter, so that no derivative is zero by symmetry."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(random.normal(0, 0.05, np.shape(leaf)), jnp.float32), place
    )


@pytest.mark.parametrize("part", ["landmarks and priors", "colors"])
def test_derivatives_are_those_of_a_dense_forward_sweep(case, prepared, part):
    """Against `jax.jacfwd` of the residuals, every parameter and every term."""
    fitting, seen, where = case["fitting"], case["seen"], disturbed(case["start"], 0)
    points, pixels = prepared(where)
    shared, view = where
    s, to_shared = ravel_pytree(shared)
    v, to_view = ravel_pytree(view)
    if part == "colors":
        arguments, values, linearize = (pixels,), pixel_terms, linearize_pixel_terms
        before = (SETTINGS,)
    else:
        arguments, values, linearize = (points,), landmark_terms, linearize_landmark_terms
        before = (fitting, SETTINGS)

    def residuals(s, v):
        return flatten(values(*before, to_shared(s), to_view(v), seen, *arguments))

    found = jax.jit(lambda s, v: linearize(*before, s, v, seen, *arguments)[0])(shared, view)
    by_shared, by_view = jax.jit(jax.jacfwd(residuals, argnums=(0, 1)))(s, v)
    np.testing.assert_allclose(found.residual, jax.jit(residuals)(s, v), atol=1e-4)
    for name, ours, dense in (("shared", found.shared, by_shared), ("view", found.view, by_view)):
        ours, dense = np.asarray(ours), np.asarray(dense)
        assert ours.shape == dense.shape
        scale = np.abs(dense).max(0)
        # Relative to each parameter's own largest entry: pixels, radians and logarithms differ in size. The
        # albedo's columns use the basis where the rasterizer saw the pixel, the sweep where the ray meets the
        # triangle.
        worst = np.abs(ours - dense).max(0) / np.maximum(scale, 1e-3)
        assert worst.max() < 0.01, (name, int(worst.argmax()), worst.max())
        # Some components of the albedo paint what is not compared (eyes, scalp); landmarks have no colour.
        assert (scale > 0).mean() > 0.5


def test_the_camera_of_a_pose_is_the_one_it_was_made_from(case):
    shared, view = case["truth"]
    focal, translation = camera(shared.log_focal[0], view.pose, case["seen"])
    np.testing.assert_allclose(translation, case["translation"], rtol=1e-4, atol=1e-2)
    assert float(focal * case["seen"].photo_px) == pytest.approx(FOCAL, rel=1e-4)


def test_zooming_leaves_the_picture_of_the_face_about_where_it_is(case, prepared, terms_at):
    """That is why a pose is a place and a size and no translation: focal length and distance do not fight."""
    shared, view = case["truth"]
    fixed = prepared(case["truth"])
    zoomed = shared.replace(log_focal=shared.log_focal + 0.1)
    before, after = (terms_at((s, view), fixed)["landmarks"] for s in (shared, zoomed))
    # In standard deviations; a translation held fixed would move the chin by ten of them.
    assert np.abs(after - before)[: 468 + 68].max() < 2


def test_at_the_truth_landmarks_and_colors_are_explained(case, prepared, terms_at):
    start, truth = (
        {name: np.asarray(value) for name, value in terms_at(place, prepared(place)).items()}
        for place in (case["start"], case["truth"])
    )
    # The 468 exact landmarks; whatever the outline rows add is small.
    assert np.abs(truth["landmarks"][:468]).max() < 0.02
    assert (truth["landmarks"] ** 2).sum() < 0.05 * (start["landmarks"] ** 2).sum()
    assert (truth["photometric"] ** 2).sum() < 0.3 * (start["photometric"] ** 2).sum()
    sample = prepared(case["truth"])[1].sample
    weight = np.asarray(sample.weight)
    assert (weight > 0).sum() > 100
    deviation = np.sqrt((truth["photometric"] ** 2).sum() / (3 * weight.sum()))
    assert deviation < 0.5  # standard deviations of an sRGB value, a crop's blur and eight bits included
    assert weight.sum() <= SETTINGS.photometric_count * 1.001


def test_pixels_are_compared_where_the_face_is(case, prepared):
    sample = prepared(case["truth"])[1].sample
    used = np.asarray(sample.weight) > 0
    barycentric = np.asarray(sample.barycentric)[used]
    np.testing.assert_allclose(barycentric.sum(-1), 1, atol=1e-4)
    assert barycentric.min() > -1e-4
    # The photograph's stripes are bluish grey, the face is not: no background among the pixels.
    red, _, blue = np.asarray(sample.color)[used].T
    assert (red > blue).mean() > 0.99
    photometric = np.asarray(case["fitting"].photometric)[np.asarray(sample.corner)[used]]
    assert photometric.max(-1).min() > 0


def test_landmarks_stay_where_the_model_has_them_when_hidden_triangles_are_cut(case):
    """Eyelids and inner lips border on what is cut; every landmark, by every parameter."""
    model = find_model("open")
    random = np.random.default_rng(0)
    identity = jnp.float32(random.normal(size=model.identity_basis.shape[0]))
    expression = jnp.float32(random.uniform(0, 0.5, model.expression_basis.shape[0]))
    # The one blendshape that fitting leaves out: alone it means nothing.
    expression = expression.at[model.expression_names.index("mouthClose")].set(0.0)
    points = vertices(model, identity, expression)
    whole = [surface_points(points, model.faces, which) for which in (model.landmarks468, model.landmarks68)]
    if model.landmark_offset468 is not None:
        whole[0] += model.landmark_offset468
    cut = case["fitting"].landmarks
    found = cut.mean + cut.basis @ jnp.concatenate([identity, expression])
    np.testing.assert_allclose(found, jnp.concatenate(whole), atol=0.01)


def test_flattened_terms_are_in_alphabetical_order():
    parts = {"b": jnp.float32([[3, 4]]), "a": jnp.float32([1, 2])}
    np.testing.assert_array_equal(flatten(parts), [1, 2, 3, 4])


def test_a_common_displacement_gives_every_row_its_own_derivative():
    x = jnp.float32(np.random.default_rng(0).normal(size=(4, 2, 3)))

    def rows(x):
        return jnp.stack([jnp.sin(x).sum((1, 2)), (x[:, 0] * x[:, 1]).sum(-1)], -1)

    dense = np.asarray(jax.jacfwd(rows)(x))
    value, (found,) = sweep(lambda shift: rows(x + shift), jnp.zeros((2, 3)))
    np.testing.assert_allclose(value, rows(x))
    np.testing.assert_allclose(found, dense[np.arange(4), :, np.arange(4)], atol=1e-6)
