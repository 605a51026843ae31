"""C-Net learns on image sets whom to trust, from a start that is exactly the mean."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from encoder_devices import SIZE, random_batch
from flax import nnx
from tiny_model import tiny_model

from facefit.encoder.losses import Weights
from facefit.encoder.networks import Features, make_confidence_network, make_encoder
from facefit.encoder.set_training import Encoded, make_encode, make_set_step, set_errors, set_identity
from facefit.encoder.surface import encoder_surface
from facefit.encoder.training import start_state
from facefit.model import find_model
from facefit.photo import read_photograph
from facefit.prediction import predicted_fit

SAMPLE = Path(__file__).resolve().parents[1] / "facefit" / "data" / "astronaut.jpg"
VIEWS, SETS = 4, 6
ONLY_TRUTH = Weights(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, neutral=1.0)


@pytest.fixture(scope="module")
def tiny():
    """A tiny model's surface, its untrained encoder, compiled, its C-Net's structure, and a start."""
    model = tiny_model()
    encoder = make_encoder(model, 0, "small+landmarks", SIZE)
    network, adam = make_confidence_network(encoder, 0), optax.adam(3e-3)
    graph = nnx.split(network, nnx.Param, ...)[0]
    step = make_set_step(graph, adam, SIZE, VIEWS, rendering=False)
    surface = encoder_surface(model)
    return surface, make_encode(encoder, surface), graph, adam, start_state(network, adam), step


def graded_sets(encode, seed: int):
    """Random persons, half of whose photographs are predicted well, half badly; one feature tells which."""
    rng = np.random.default_rng(seed)
    batch = random_batch(seed, SETS * VIEWS, labelled=1.0)
    persons = rng.normal(size=(SETS, batch.identity.shape[-1])).astype(np.float32)
    batch = batch.replace(identity=np.repeat(persons, VIEWS, 0))
    bad = rng.permuted(np.tile([0.0, 0.0, 1.0, 1.0], (SETS, 1)), axis=1).reshape(-1).astype(np.float32)
    encoded = jax.tree.map(np.asarray, encode(batch.image, batch.dense))
    noise = rng.normal(size=batch.identity.shape).astype(np.float32)
    guess = batch.identity + (0.1 + 1.5 * bad[:, None]) * noise
    pooled = np.zeros_like(encoded.features.pooled)
    pooled[:, 0] = 3.0 * bad
    found = encoded.found.replace(identity=guess.astype(np.float32))
    return Encoded(found, Features(np.zeros_like(encoded.features.shallow), pooled)), batch, bad


def apart(values):
    return np.asarray(values).reshape(SETS, VIEWS, -1)


def confidences(graph, state, encoded):
    return np.asarray(nnx.merge(graph, state.parameters, state.statistics)(encoded.features))


def test_the_first_step_aggregates_by_the_mean(tiny):
    surface, encode, _, _, state, step = tiny
    encoded, batch, _ = graded_sets(encode, 0)
    _, report = step(state, surface, ONLY_TRUTH, encoded, batch)
    guess = apart(encoded.found.identity)
    figures = set_errors(surface, guess, np.ones_like(guess), apart(batch.identity)[:, 0])
    off = guess.mean(1) - apart(batch.identity)[:, 0]
    expected = np.einsum("bi,ij,bj->b", off, np.asarray(surface.identity_metric), off)
    assert float(report.terms["neutral"]) == pytest.approx(expected.mean(), rel=1e-4)
    assert figures["aggregate_mm"] == pytest.approx(np.sqrt(expected).mean(), rel=1e-4)
    assert figures["aggregate_mm"] == pytest.approx(figures["mean_mm"])
    assert "photometric" not in report.terms


def test_it_learns_to_trust_the_photographs_that_are_predicted_well(tiny):
    surface, encode, graph, _, state, step = tiny
    for number in range(60):
        encoded, batch, _ = graded_sets(encode, 1 + number % 10)
        state, report = step(state, surface, ONLY_TRUTH, encoded, batch)
    assert bool(report.finite) and int(state.step) == 60
    encoded, batch, bad = graded_sets(encode, 100)  # persons never met
    trust = confidences(graph, state, encoded)
    share = apart(trust) / apart(trust).sum(1, keepdims=True)
    bad = bad.reshape(SETS, VIEWS)
    assert share[bad == 1].mean() < 0.3 * share[bad == 0].mean()
    guess, truth = apart(encoded.found.identity), apart(batch.identity)[:, 0]
    figures = set_errors(surface, guess, apart(trust), truth)
    assert figures["aggregate_mm"] < 0.6 * figures["mean_mm"] < 0.6 * figures["single_mm"]


def test_pictures_take_part_where_they_are_asked_for_and_lead_the_confidences(tiny):
    surface, encode, graph, adam, state, _ = tiny
    encoded, batch, _ = graded_sets(encode, 3)
    step = make_set_step(graph, adam, SIZE, VIEWS, rendering=True)
    only = Weights(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    _, report = step(state, surface, only, encoded, batch)
    assert float(report.total) == pytest.approx(float(report.terms["photometric"]))
    assert float(report.terms["photometric"]) > 0 and float(report.gradient_norm) > 0


def test_a_set_step_that_is_not_finite_changes_nothing(tiny):
    surface, encode, _, _, state, step = tiny
    encoded, batch, _ = graded_sets(encode, 4)
    third = np.arange(len(batch.identity))[:, None] == 2
    broken = batch.replace(identity=np.where(third, np.nan, batch.identity))
    after, report = step(state, surface, ONLY_TRUTH, encoded, broken)
    assert not bool(report.finite)
    after, before = (jax.tree.map(np.asarray, one) for one in (after, state))
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_every_photograph_of_a_set_gets_its_aggregate():
    identity = jnp.asarray([[1.0], [3.0], [10.0], [20.0]])
    confidence = jnp.asarray([[1.0], [3.0], [0.5], [0.5]])
    np.testing.assert_allclose(set_identity(identity, confidence, 2)[:, 0], [2.5, 2.5, 15.0, 15.0])


def test_errors_of_sets_are_those_of_the_aligned_face(tiny):
    surface = tiny[0]
    metric, rng = np.asarray(surface.identity_metric, np.float64), np.random.default_rng(5)
    count = len(metric)
    truth = rng.normal(size=(2, count))
    sets = [np.stack([truth[0], truth[0] + 1, truth[0] - 3]), np.stack([truth[1] + 2, truth[1]])]
    trust = [np.repeat([[1.0], [0.0], [0.0]], count, 1), np.repeat([[0.0], [1.0]], count, 1)]
    figures = set_errors(surface, sets, trust, truth)
    one = np.sqrt(metric.sum())  # of a face that is off by one in every coefficient
    assert figures["aggregate_mm"] == figures["best_single_mm"] == 0
    assert figures["mean_mm"] == pytest.approx((2 / 3 + 1) / 2 * one)
    assert figures["single_mm"] == pytest.approx((4 / 3 + 1) / 2 * one)
    assert figures["mean_face_mm"] == pytest.approx(
        np.sqrt(np.einsum("bi,ij,bj->b", truth, metric, truth)).mean()
    )


def test_a_covered_photograph_counts_less_beside_an_open_one():
    """The encoder that comes with facefit, on the sample and on the sample behind a board."""
    model, photograph = find_model("open"), read_photograph(str(SAMPLE))
    low, high = photograph.landmarks468[:, :2].min(0), photograph.landmarks468[:, :2].max(0)
    middle = slice(*(int(low[1] + part * (high - low)[1]) for part in (0.3, 0.7)))
    pixels = photograph.pixels.copy()
    pixels[middle, int(low[0]) : int(high[0])] = 40, 90, 160
    covered = dataclasses.replace(photograph, pixels=pixels)
    fit = predicted_fit((photograph, covered), entries := [{"outcome": "read"} for _ in range(2)], model, "")
    shares = [entry["identity_share"] for entry in entries]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5) and shares[1] < 0.4
    plain, worse = (predicted_fit((one,), [], model, "").identity for one in (photograph, covered))
    assert np.linalg.norm(fit.identity - plain) < 0.5 * np.linalg.norm(worse - plain)
