"""A training step does what it says, and the same on one device, on four, and in two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from encoder_devices import SIZE, losses, random_batch
from tiny_model import tiny_model

from facefit.encoder.losses import Weights, project_landmarks
from facefit.encoder.networks import make_encoder
from facefit.encoder.surface import encoder_surface
from facefit.encoder.training import (
    devices_mesh,
    make_predict,
    make_step,
    optimizer,
    split,
    start_state,
)

SCRIPT = Path(__file__).parent / "encoder_devices.py"


@pytest.fixture(scope="module")
def tiny():
    model = tiny_model()
    surface, adam = encoder_surface(model), optimizer(3e-3)
    encoder = make_encoder(model, 0, "small+landmarks", SIZE)
    step = make_step(split(encoder)[0], adam, SIZE, rendering=True)

    def begin():
        return jax.tree.map(jnp.copy, start_state(encoder, adam))

    return surface, encoder, begin, step


def test_a_few_steps_lower_every_supervised_term_and_the_landmark_loss(tiny):
    surface, _, begin, step = tiny
    state, batch = begin(), random_batch(0, labelled=1.0)
    weights = Weights(neutral=1.0, geometry=0.1, albedo=5.0)
    for number in range(40):
        state, report = step(state, surface, weights, batch)
        if number == 0:
            first = report
    assert bool(report.finite) and int(state.step) == 40
    for name in ("neutral", "albedo", "landmarks"):
        assert float(report.terms[name]) < 0.7 * float(first.terms[name]), name


def test_the_first_step_sees_the_mean_face(tiny):
    surface, encoder, begin, step = tiny
    state, batch = begin(), random_batch(1)
    found = make_predict(split(encoder)[0])(state, surface, batch.image, batch.dense)
    assert float(jnp.abs(found.identity).max()) == 0.0
    _, report = step(state, surface, Weights(), batch)
    known = batch.identity[batch.labelled]
    expected = np.einsum("bi,ij,bj->b", known, np.asarray(surface.identity_metric), known).mean()
    assert float(report.terms["neutral"]) == pytest.approx(expected, rel=1e-4)
    assert float(report.terms["coefficients"]) == 0.0 and float(report.terms["light_color"]) == 0.0


def test_a_step_that_is_not_finite_changes_nothing_and_says_so(tiny):
    surface, _, begin, step = tiny
    batch = random_batch(2)
    broken = batch.replace(image=np.where(np.arange(SIZE)[:, None] == 3, np.nan, batch.image))
    before = jax.tree.map(np.asarray, begin())
    state, report = step(begin(), surface, Weights(), broken)
    assert not bool(report.finite)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, state), before)


def test_kept_statistics_stay_while_the_network_learns(tiny):
    surface, encoder, begin, _ = tiny
    kept = make_step(split(encoder)[0], optimizer(3e-3), SIZE, rendering=False, keep_statistics=True)
    before = jax.tree.map(np.asarray, begin())
    state, report = kept(begin(), surface, Weights(neutral=1.0), random_batch(4, labelled=1.0))
    assert bool(report.finite)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, state.statistics), before.statistics)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.parameters, before.parameters)
    assert max(jax.tree.leaves(moved)) > 0


def test_the_gradient_is_clipped_to_its_global_norm():
    # Plain descent shows the length of the step; Adam would hide it.
    clip = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0))
    updates, _ = clip.update({"a": jnp.asarray([30.0, 40.0])}, clip.init({"a": jnp.zeros(2)}))
    assert float(optax.global_norm(updates)) == pytest.approx(0.5, rel=1e-6)
    adam = optimizer(1e-3, clip=0.5)
    small, large = (
        adam.update({"a": g}, adam.init({"a": jnp.zeros(2)}))[0]["a"]
        for g in (jnp.asarray([0.3, 0.4]), jnp.asarray([300.0, 400.0]))
    )
    np.testing.assert_allclose(small, large, rtol=1e-6)


def test_muon_moves_matrices_alike_in_all_directions_and_heads_as_adam_does(tiny):
    _, encoder, _, _ = tiny
    parameters = split(encoder)[1]
    leaves, structure = jax.tree.flatten(parameters)
    rng = np.random.default_rng(0)
    gradient = [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    # Directions of very different strength: plain momentum would follow the strongest.
    gradient = [
        g * np.geomspace(1, 1e-3, g.shape[-1], dtype=np.float32) if g.ndim == 2 else g for g in gradient
    ]
    rates = {"muon": 2e-3, "adam": 1e-3}
    moved = {}
    for name, rate in rates.items():
        rule = optimizer(rate, clip=1e9, muon=name == "muon")
        updates, _ = rule.update(jax.tree.unflatten(structure, gradient), rule.init(parameters), parameters)
        moved[name] = updates
    directions = jnp.linalg.svd(moved["muon"]["points"]["layers"][1]["kernel"][...], compute_uv=False)
    assert directions[0] < 3 * directions[len(directions) // 2]
    by_muon, by_adam = (moved[name]["heads"]["identity"]["kernel"][...] / rates[name] for name in rates)
    # A first step of Adam is as long whatever the gradient; with Nesterov's momentum it is longer.
    np.testing.assert_allclose(by_muon / by_adam, np.median(by_muon / by_adam), rtol=1e-3)


def test_the_loss_leads_the_pose_towards_the_landmarks(tiny):
    surface, encoder, begin, step = tiny
    batch = random_batch(3)
    found = make_predict(split(encoder)[0])(begin(), surface, batch.image, batch.dense)
    target = project_landmarks(surface, found.replace(translation=found.translation + 20.0), SIZE)
    state, batch = begin(), batch.replace(landmarks=np.asarray(target), labelled=np.zeros(8, bool))
    for _ in range(60):
        state, report = step(state, surface, Weights(photometric=0.0), batch)
    moved = make_predict(split(encoder)[0])(state, surface, batch.image, batch.dense).translation
    shift = np.asarray(moved - found.translation)[:, :2]
    assert np.all(shift > 5.0)  # statistics lag behind the batch's, so not all of the 20 mm


def _run(out: Path, *arguments, devices: int = 1) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, SCRIPT, out, *map(str, arguments)], env=environment)


@pytest.fixture(scope="module")
def alone():
    return losses(devices_mesh())


def _equal(file: Path, alone, devices: int):
    with np.load(file) as found:
        assert int(found["devices"]) == devices
        # Numbers are added up in another order.
        np.testing.assert_allclose(found["curve"], alone[0], rtol=1e-5)
        np.testing.assert_allclose(found["parameters"], alone[1], atol=1e-5)


@pytest.mark.exhaustive
def test_four_devices_compute_what_one_does(tmp_path, alone):
    assert _run(tmp_path / "four.npz", devices=4).wait() == 0
    _equal(tmp_path / "four.npz", alone, 4)


@pytest.mark.exhaustive
def test_two_processes_compute_what_one_does(tmp_path, alone):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    running = [_run(tmp_path / f"{k}.npz", k, 2, port) for k in range(2)]
    assert [process.wait(timeout=600) for process in running] == [0, 0]
    for k in range(2):
        _equal(tmp_path / f"{k}.npz", alone, 2)
