"""The encoder's losses equal their closed forms, with the constants of Deng et al. 2019."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefit.color import linear_to_srgb, linear_to_srgb_unclipped
from facefit.encoder.losses import LIGHTING_METRIC, Weights, weigh
from facefit.energy.geometry import color_metric, quadratic_loss, shape_metric, similarity_directions
from facefit.energy.landmarks import landmark_loss
from facefit.energy.photometric import photometric_loss
from facefit.energy.priors import coefficient_loss, exposure_loss, light_color_loss, reflectance_loss
from facefit.metrics import similarity
from facefit.render.lighting import irradiance
from facefit.synthesis.lights import sphere


def test_photometric_loss_is_the_weighted_mean_distance_over_the_whole_batch():
    observed = jnp.zeros((2, 4, 4, 3))
    rendered = observed.at[0].set(jnp.asarray([0.3, 0.0, 0.4])).at[1].set(1.0)
    weight = jnp.zeros((2, 4, 4)).at[0, :, 0].set(1.0).at[1, 0, 0].set(0.5)
    # Four pixels at distance 0.5 and half a pixel at sqrt(3); 1e-6 under the root changes the sixth digit.
    expected = (4 * 0.5 + 0.5 * 3**0.5) / 4.5
    assert float(photometric_loss(rendered, observed, weight)) == pytest.approx(expected, rel=1e-5)


def test_photometric_loss_is_zero_without_skin_and_smooth_where_pictures_agree():
    picture = jnp.full((1, 2, 2, 3), 0.5)
    assert float(photometric_loss(picture, 0 * picture, jnp.zeros((1, 2, 2)))) == 0.0
    gradient = jax.grad(lambda x: photometric_loss(x, picture, jnp.ones((1, 2, 2))))(picture)
    assert np.all(np.isfinite(gradient)) and float(jnp.abs(gradient).max()) == 0.0


def test_photometric_loss_leads_no_gradient_through_its_attention():
    def loss(weight):
        return photometric_loss(jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3)), weight)

    assert float(jnp.abs(jax.grad(loss)(jnp.full((1, 2, 2), 0.7))).max()) == 0.0


@pytest.mark.parametrize(
    ("point", "stress"), [(0, 1), (27, 1), (28, 20), (30, 20), (31, 1), (59, 1), (60, 20), (67, 20)]
)
def test_landmark_loss_stresses_nose_and_inner_mouth_and_counts_in_224_pixels(point, stress):
    observed = jnp.zeros((3, 68, 2))
    projected = observed.at[1, point].set(jnp.asarray([3.0, 4.0]))
    loss = landmark_loss(projected, observed, jnp.ones((3, 68)), 112)
    # 25 square pixels of 112 are 100 of 224; the mean is over 3 x 68 points.
    assert float(loss) == pytest.approx(stress * 100 / (3 * 68), rel=1e-6)


def test_unknown_landmarks_do_not_count():
    weight = jnp.ones((1, 68)).at[0, 5].set(0.0)
    projected = jnp.zeros((1, 68, 2)).at[0, 5].set(50.0)
    assert float(landmark_loss(projected, jnp.zeros((1, 68, 2)), weight, 224)) == 0.0


def test_coefficient_loss_of_a_gaussian_basis_has_the_papers_constants():
    loss = coefficient_loss(jnp.full((2, 3), 2.0), jnp.full((2, 5), 1.0), jnp.full((2, 7), 10.0), 1.0, False)
    assert float(loss) == pytest.approx(3 * 4 + 0.8 * 5 + 0.017 * 700, rel=1e-6)


def test_coefficient_loss_counts_blendshapes_in_standard_deviations_and_bounds_them():
    inside = coefficient_loss(jnp.zeros((1, 3)), jnp.asarray([[0.5, 0.0]]), jnp.zeros((1, 2)), 0.25, True)
    outside = coefficient_loss(jnp.zeros((1, 3)), jnp.asarray([[-0.5, 0.0]]), jnp.zeros((1, 2)), 0.25, True)
    assert float(inside) == pytest.approx(0.8 * 4, rel=1e-6)
    assert float(outside) == pytest.approx(0.8 * (4 + (0.5 / 0.03) ** 2), rel=1e-5)


def test_white_light_costs_nothing_and_coloured_light_its_variance():
    white = jnp.ones((2, 9, 1)) * jnp.ones((3,))
    assert float(light_color_loss(white)) == 0.0
    tinted = white.at[0, 4].add(jnp.asarray([0.3, 0.0, -0.3]))
    assert float(light_color_loss(tinted)) == pytest.approx(2 * 0.09 / (2 * 27), rel=1e-5)


def test_reflectance_loss_is_the_variance_over_the_skin_alone():
    albedo = jnp.zeros((1, 4, 3)).at[0, 0].set(1.0).at[0, 3].set(9.0)
    skin = jnp.asarray([1.0, 1.0, 0.0, 0.0])
    # Two vertices, 1 and 0 in three channels: (0.25 + 0.25) x 3 / 2. The bright one outside does not count.
    assert float(reflectance_loss(albedo, skin)) == pytest.approx(0.75, rel=1e-6)


def test_exposure_loss_is_zero_for_light_of_mean_irradiance_one():
    light = jnp.zeros((2, 9, 3)).at[:, 0].set(1.0).at[1].mul(np.e**0.5)
    assert float(exposure_loss(light, 0.25)) == pytest.approx(0.5 * (0.5 / 0.25) ** 2, rel=1e-5)


def test_unclipped_srgb_agrees_inside_and_keeps_its_slope_outside():
    inside = jnp.linspace(0, 1, 101)
    np.testing.assert_allclose(linear_to_srgb_unclipped(inside), linear_to_srgb(inside), atol=1e-7)
    slope = jax.vmap(jax.grad(linear_to_srgb_unclipped))(jnp.asarray([-0.5, 2.0]))
    assert np.all(np.asarray(slope) > 0)


def test_similarities_cost_nothing_in_the_shape_metric():
    random = np.random.default_rng(0)
    points = random.normal(size=(40, 3)) * [60, 80, 30]
    moves = similarity_directions(points)
    np.testing.assert_allclose(np.einsum("anc,bnc->ab", moves, moves), np.eye(7), atol=1e-12)
    turn = np.cross([0.3, -0.1, 0.2], points)  # not about the centre: a shift comes with it
    basis = np.stack([np.ones_like(points), turn, 0.02 * points, random.normal(size=(40, 3))])
    metric = shape_metric(basis, points)
    assert np.abs(metric[:3]).max() < 1e-9 < metric[3, 3]


def test_shape_metric_is_the_mean_squared_error_after_alignment():
    random = np.random.default_rng(1)
    points = random.normal(size=(200, 3)) * [60, 80, 30]
    basis = random.normal(size=(3, 200, 3))
    difference = np.array([0.5, -0.2, 0.4])
    wanted = points + np.tensordot(difference, basis, axes=1)
    aligned = similarity(points, wanted)(points)
    exact = ((aligned - wanted) ** 2).sum(1).mean()
    loss = quadratic_loss(difference[None], shape_metric(basis, points), np.ones(1))
    # Linearised: the error is of second order in displacement over size, here (0.7 / 60)^2.
    assert float(loss) == pytest.approx(exact, rel=2e-3)


def test_color_metric_is_the_weighted_mean_squared_difference():
    random = np.random.default_rng(2)
    basis, weight = random.normal(size=(4, 30, 3)), random.uniform(size=30)
    difference = random.normal(size=4)
    direct = (weight[:, None] * np.tensordot(difference, basis, axes=1) ** 2).sum() / weight.sum()
    loss = quadratic_loss(difference[None], color_metric(basis, weight), np.ones(1))
    assert float(loss) == pytest.approx(direct, rel=1e-5)


def test_samples_without_truth_do_not_enter_the_supervised_terms():
    metric, difference = jnp.eye(2), jnp.asarray([[1.0, 0.0], [100.0, 100.0]])
    assert float(quadratic_loss(difference, metric, jnp.asarray([1.0, 0.0]))) == pytest.approx(1.0)
    assert float(quadratic_loss(difference, metric, jnp.zeros(2))) == 0.0


def test_default_weights_are_the_papers():
    terms = dict.fromkeys(
        ("photometric", "landmarks", "identity_feature", "coefficients", "light_color", "reflectance"),
        jnp.ones(()),
    )
    assert float(weigh(terms, Weights())) == pytest.approx(1.92 + 1.6e-3 + 0.2 + 3e-4 + 10 + 5, rel=1e-6)


def test_the_lighting_metric_is_the_mean_square_of_what_white_spheres_reflect():
    difference = np.random.default_rng(0).normal(size=(9, 3))
    reflected = irradiance(jnp.asarray(sphere(4000)), jnp.asarray(difference))
    direct = float(jnp.mean(jnp.sum(reflected**2, -1)))
    loss = quadratic_loss(jnp.asarray(difference.reshape(1, 27)), LIGHTING_METRIC, jnp.ones(1))
    assert float(loss) == pytest.approx(direct, rel=1e-2)  # 4000 directions
