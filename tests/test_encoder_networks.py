"""The networks start at the mean face, have the sizes they claim, and aggregate as the paper does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_model import tiny_model

from facefit.encoder.coefficients import coefficients, crop_matrix, to_parameters
from facefit.encoder.losses import draw, project_landmarks
from facefit.encoder.networks import (
    Encoder,
    Features,
    PatchConvolution,
    aggregate,
    make_confidence_network,
    make_encoder,
)
from facefit.encoder.surface import encoder_surface
from facefit.photo.face_crop import FACE_SHARE

POINTS = 16 + 5 * jax.random.normal(jax.random.key(9), (2, 468, 3))


@pytest.fixture(scope="module")
def tiny():
    model = tiny_model()
    return model, encoder_surface(model), make_encoder(model, 0, "small+landmarks", 32)


# As one program each: operation by operation they would compile for half a minute.
forward = nnx.jit(lambda network, *seen: network(*seen))


def _size(module) -> int:
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def test_an_untrained_network_predicts_the_mean_face_for_every_photograph(tiny):
    _, surface, encoder = tiny
    outputs, _ = forward(encoder, jax.random.uniform(jax.random.key(0), (2, 32, 32, 3)), POINTS)
    found = coefficients(outputs, surface.start)
    for name in ("identity", "expression", "albedo", "rotation"):
        assert np.all(np.asarray(getattr(found, name)) == 0)
    np.testing.assert_array_equal(found.lighting[1], np.eye(9)[:, :1] * np.ones(3))
    np.testing.assert_array_equal(found.translation[0], surface.start.translation)


def test_the_mean_face_fills_the_crop_as_the_crop_rule_says(tiny):
    _, surface, encoder = tiny
    outputs, _ = forward(encoder, jnp.zeros((2, 32, 32, 3)), POINTS)
    points = np.asarray(project_landmarks(surface, coefficients(outputs, surface.start), 32))[0]
    low, high = points.min(0), points.max(0)
    np.testing.assert_allclose((low + high) / 2, 16, atol=0.01)
    assert (high - low).max() / 32 == pytest.approx(FACE_SHARE, abs=1e-3)


def test_lighting_outputs_are_ordered_channel_by_channel_as_the_papers(tiny):
    _, surface, _ = tiny
    outputs = {"identity": jnp.zeros(4), "expression": jnp.zeros(3), "albedo": jnp.zeros(2)}
    outputs |= {"rotation": jnp.zeros(3), "place": jnp.zeros(2), "depth": jnp.ones(1)}
    found = coefficients(outputs | {"lighting": jnp.zeros(27).at[9 + 4].set(1.0)}, surface.start)
    assert float(found.lighting[4, 1]) == 1.0 and float(jnp.abs(found.lighting[1:]).sum()) == 1.0
    np.testing.assert_allclose(found.translation - surface.start.translation, [0, 0, 100], atol=1e-3)


def test_the_small_network_has_at_most_three_million_parameters():
    encoder = nnx.eval_shape(lambda: Encoder((130, 52, 52), nnx.Rngs(0), "small+landmarks", 128))
    assert 1_000_000 < _size(encoder) <= 3_000_000


def test_resnet50_has_the_size_of_the_published_one():
    shapes = nnx.eval_shape(lambda: Encoder((80, 64, 80), nnx.Rngs(0), "resnet50", 224))
    backbone = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(shapes.backbone, nnx.Param)))
    assert backbone == 25_557_032 - 2048 * 1000 - 1000  # torchvision's, less its classifier
    assert sum(head.out_features for head in shapes.heads.values()) == 257


def test_resnet50_halves_the_picture_five_times():
    encoder = nnx.eval_shape(lambda: Encoder((4, 3, 2), nnx.Rngs(0), "resnet50", 224))
    graph, state = nnx.split(encoder)
    shapes = jax.eval_shape(
        lambda state: nnx.merge(graph, state)(jnp.zeros((1, 224, 224, 3)), POINTS[:1])[1], state
    )
    assert shapes.shallow.shape == (1, 56, 56, 256) and shapes.pooled.shape == (1, 2048)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)])
def test_patch_convolution_is_a_convolution(kernel, stride):
    ours = PatchConvolution(3, 5, kernel, stride, jnp.float32, nnx.Rngs(1))
    x = jax.random.normal(jax.random.key(2), (2, 8, 8, 3))
    weights = ours.product.kernel.get_value().reshape(kernel, kernel, 3, 5)
    border = [(kernel // 2, (kernel - 1) // 2)] * 2
    theirs = jax.lax.conv_general_dilated(
        x, weights, (stride, stride), border, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(ours(x), theirs, atol=1e-5)  # sums of up to 27 products


def test_unknown_backbones_and_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="choose one of resnet50, small, small"):
        Encoder((4, 3, 2), nnx.Rngs(0), "vgg")
    with pytest.raises(ValueError, match="multiple of 4"):
        Encoder((4, 3, 2), nnx.Rngs(0), "small", 30)


def test_confidences_start_equal_so_that_the_aggregate_is_exactly_the_mean(tiny):
    _, _, encoder = tiny
    network = make_confidence_network(encoder, 0)
    shallow = jax.random.normal(jax.random.key(0), (4, 4, 4, encoder.backbone.shallow_channels))
    pooled = jax.random.normal(jax.random.key(1), (4, encoder.features))
    confidence = forward(network, Features(shallow, pooled))
    assert np.all(np.asarray(confidence) == 0.5) and confidence.shape == (4, 4)
    values = jax.random.normal(jax.random.key(2), (4, 4))
    np.testing.assert_allclose(aggregate(values, confidence), values.mean(0), rtol=1e-6)


def test_aggregation_is_the_confidence_weighted_mean_of_each_coefficient():
    values = jnp.asarray([[1.0, 10.0], [3.0, 20.0], [99.0, 99.0]])
    confidence = jnp.asarray([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    present = jnp.asarray([1.0, 1.0, 0.0])
    np.testing.assert_allclose(aggregate(values, confidence, present), [2.5, 20.0])
    order = jnp.asarray([1, 0, 2])
    np.testing.assert_allclose(
        aggregate(values[order], confidence[order], present), aggregate(values, confidence, present)
    )


def test_predictions_become_the_fits_parameter_record(tiny):
    _, surface, encoder = tiny
    outputs, _ = forward(encoder, jnp.zeros((2, 32, 32, 3)), POINTS)
    found = coefficients(outputs, surface.start)
    record = to_parameters(found.replace(identity=found.identity[0], albedo=found.albedo[0]), 32)
    assert record.identity.shape == (4,) and record.views.lighting.shape == (2, 9, 3)
    np.testing.assert_allclose(np.exp(record.views.log_focal), float(crop_matrix(32)[0, 0]), rtol=1e-6)


def test_drawn_predictions_cover_their_landmarks(tiny):
    _, surface, encoder = tiny
    outputs, _ = forward(encoder, jnp.zeros((2, 32, 32, 3)), POINTS)
    found = coefficients(outputs, surface.start)
    drawn = draw(surface, jax.tree.map(lambda leaf: leaf[0], found), 32)
    column, row = np.asarray(project_landmarks(surface, found, 32))[0].astype(int).clip(0, 31).T
    assert np.asarray(drawn.coverage)[row, column].min() > 0.2
    assert np.all(np.asarray(drawn.trust) <= np.asarray(drawn.coverage) + 1e-5)


def test_only_the_encoder_that_is_told_landmarks_depends_on_them(tiny):
    model, _, encoder = tiny
    image = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    blind = make_encoder(model, 0, "small", 32)
    told, same = (
        forward(network, image, POINTS)[1].pooled - forward(network, image, POINTS + 1.0)[1].pooled
        for network in (encoder, blind)
    )
    assert float(jnp.abs(told).max()) > 0 and float(jnp.abs(same).max()) == 0
