"""Albedo components that photographs show are found again; they are symmetric; coefficients convert."""

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from tiny_model import tiny_model

from experiments.learn_albedo import Arguments, main, priors_of, run
from experiments.open_face import albedo_learning as learning
from experiments.open_face.color_solver import Albedo, Colors, evidence, solve, solve_all
from experiments.open_face.learned_basis import conversion, converted_encoder, remaining, with_learned
from experiments.open_face.observed_colors import Seen
from facefit.color import linear_to_srgb
from facefit.errors import InputError
from facefit.render import shade

SKIN = np.float32([0.42, 0.24, 0.15])
AXES = np.float32([[0.4, 0.4, 0.4], [0.03, -0.08, -0.05]])
NAMED, LEARNED, PERSONS = 2, 2, 60


@pytest.fixture(scope="module")
def sphere():
    """Directions (V, 3) and triangles of a mesh that is its own mirror image."""
    mesh = trimesh.creation.icosphere(subdivisions=2)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int32)


@pytest.fixture(scope="module")
def fold(sphere):
    directions, faces = sphere
    return learning.fold_mesh(100 * directions, faces, np.tile(SKIN, (len(directions), 1)), AXES)


@pytest.fixture(scope="module")
def photographed(sphere, fold):
    """Sixty persons of known components: what is learned from their colours, and the truth (2, V, 3)."""
    directions, faces = sphere
    random = np.random.default_rng(0)
    x, y, z = directions.T
    mean = np.tile(SKIN, (len(x), 1))
    spots = np.stack(
        [
            np.exp(-20 * ((np.abs(x) - 0.5) ** 2 + (y - 0.2) ** 2)),
            np.exp(-20 * ((np.abs(x) - 0.2) ** 2 + (y + 0.4) ** 2)),
        ]
    )
    truth = spots[..., None] * SKIN * np.array([[[-0.25] * 3], [[0.1, -0.3, -0.2]]])
    named = np.stack([0.3 * mean, mean * AXES[1]])
    basis = np.concatenate([named, truth])
    coefficients = random.standard_normal((PERSONS, len(basis)))
    lighting = np.zeros((PERSONS, 9, 3))
    lighting[:, 0] = random.uniform(0.95, 1.05, (PERSONS, 1))
    lighting[:, 1:4] = random.normal(0, 0.1, (PERSONS, 3, 1))
    shown = [shade(mean + np.tensordot(a, basis, 1), directions, light)
             for a, light in zip(coefficients, lighting)]  # fmt: skip
    color = np.stack([np.asarray(linear_to_srgb(one)) for one in shown])
    color += random.normal(0, 0.01, color.shape)
    weight = np.tile(np.where(z < 0.3, 1.0, 0.0), (PERSONS, 1))  # camera frame: the near side is seen
    seen = Seen(*(jnp.asarray(v, jnp.float32) for v in
                  (color, weight, np.broadcast_to(directions, color.shape))))  # fmt: skip
    mean, named = jnp.asarray(mean, jnp.float32), jnp.asarray(named, jnp.float32)
    pairs = len(fold.pair)
    priors = learning.Priors(480.0, 0.02, jnp.full((pairs,), 0.3), 0.05, 0.002)
    ambient = jnp.zeros((PERSONS, 9, 3)).at[:, 0].set(1.0)
    nothing = jnp.zeros((1, pairs, 3))
    state = learning.Learned(
        offset=nothing,
        known=jnp.ones((PERSONS, 1)),
        components=nothing[:0],
        colors=Colors(jnp.zeros((PERSONS, NAMED)), ambient),
        covariance=jnp.zeros((PERSONS, NAMED, NAMED)),
        share=jnp.ones(PERSONS),
        tones=nothing[:0],
    )
    places = jnp.asarray(np.flatnonzero(z < 0.3))

    def expect(state, steps):
        return learning.expect(mean, named, fold, state, seen, priors, places, places[::8], steps)

    state = expect(state, 6)
    found = learning.first_components(mean, named, fold, state, seen, priors.count, LEARNED)
    width = NAMED + LEARNED
    state = state._replace(
        components=found,
        colors=state.colors._replace(albedo=jnp.pad(state.colors.albedo, ((0, 0), (0, LEARNED)))),
        covariance=jnp.zeros((PERSONS, width, width)),
    )
    for _ in range(4):
        state = learning.maximise(mean, named, fold, expect(state, 2), seen, priors)
    return state, named, truth, weight[0] > 0


def test_components_that_photographs_show_are_found_up_to_a_rotation(photographed, fold):
    state, named, truth, seen = photographed
    made = np.concatenate([named, np.asarray(state.components[:, fold.of])])[:, seen].reshape(
        -1, 3 * seen.sum()
    )
    wanted = truth[:, seen].reshape(LEARNED, -1)
    left = wanted - wanted @ np.linalg.pinv(made) @ made
    missed = (left**2).sum(1) / (wanted**2).sum(1)
    # By chance four of some three hundred dimensions miss 99 %; light and smoothness keep a little.
    assert missed.max() < 0.2, missed


def test_coefficients_of_the_photographs_are_standard_and_uncorrelated(photographed):
    state = photographed[0]
    own = np.asarray(state.colors.albedo[:, NAMED:], np.float64)
    moments = own.T @ own / len(own) + np.asarray(state.covariance)[:, NAMED:, NAMED:].mean(0)
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-4)  # float32
    np.testing.assert_allclose(moments, np.eye(LEARNED), atol=1e-3)


def test_components_are_alike_on_both_sides(photographed, fold, sphere):
    full = np.asarray(photographed[0].components[:, fold.of])
    np.testing.assert_array_equal(full, full[:, learning.mirrored_vertices(sphere[0])])


def test_a_mesh_that_is_not_symmetric_is_refused(sphere):
    with pytest.raises(ValueError, match="not symmetric"):
        learning.mirrored_vertices(sphere[0] + [[0.1, 0, 0]])


def test_rare_tones_count_more_but_not_without_bound():
    tone = np.concatenate([np.zeros(95), np.ones(5)]) + np.linspace(0, 1e-3, 100)
    share = np.asarray(learning.balanced(tone))
    assert share.mean() == pytest.approx(1, abs=1e-5)
    assert 2 < share[-1] / share[0] < 19


def test_solving_a_photograph_that_the_model_made_finds_its_colours(sphere):
    """Without noise nothing but the priors keeps the solution from the truth."""
    directions = jnp.asarray(sphere[0], jnp.float32)
    mean = jnp.tile(jnp.asarray(SKIN), (len(directions), 1))
    spot = jnp.exp(-8 * (directions[:, 1] - 0.3) ** 2)[:, None] * mean
    basis = jnp.stack([0.3 * mean, 0.2 * spot])
    light = jnp.zeros((9, 3)).at[0].set(1.0).at[2].set(-0.2)
    color = linear_to_srgb(shade(mean + 0.5 * basis[0] - 1.0 * basis[1], directions, light))
    model = Albedo(mean, basis, mean[::20], basis[:, ::20], jnp.ones(2))
    seen = Seen(color, jnp.ones(len(mean)), directions)
    start = Colors(jnp.zeros(2), jnp.zeros((9, 3)).at[0].set(1.0))
    found, covariance = solve(model, start, evidence(seen, 1e5), 10)
    # What of the tone is skin and what exposure, the priors say; a spot is the skin's.
    assert found.albedo[1] == pytest.approx(-1.0, abs=0.1)
    again = linear_to_srgb(shade(mean + jnp.tensordot(found.albedo, basis, 1), directions, found.lighting))
    np.testing.assert_allclose(again, color, atol=2e-3)  # half of what a byte tells
    assert np.linalg.eigvalsh(np.asarray(covariance)).min() > 0
    many = solve_all(
        model,
        (jnp.zeros((1, *mean.shape)), jnp.zeros((1, *mean[::20].shape))),
        jnp.ones((1, 1)),
        Colors(start.albedo[None], start.lighting[None]),
        Seen(*(values[None] for values in seen)),
        10,
    )[0]
    alone = solve(model, start, evidence(seen), 10)[0]
    np.testing.assert_allclose(many.albedo[0], alone.albedo, atol=1e-4)


def test_conversion_keeps_an_albedo_that_both_bases_can_make():
    old = tiny_model()
    turn = np.float32([[0.6, 0.8], [-0.8, 0.6]])
    basis = np.tensordot(turn, np.asarray(old.albedo_basis), 1)
    shift = np.tensordot(np.float32([0.2, -0.1]), np.asarray(old.albedo_basis), 1)
    new = old.replace(albedo_basis=basis, albedo_mean=np.asarray(old.albedo_mean) + shift)
    matrix, constant = conversion(old, new)
    before = np.float32([0.7, -1.1])
    after = matrix @ before + constant
    np.testing.assert_allclose(
        np.asarray(old.albedo_mean) + np.tensordot(before, np.asarray(old.albedo_basis), 1),
        np.asarray(new.albedo_mean) + np.tensordot(after, np.asarray(new.albedo_basis), 1),
        atol=1e-5,  # float32
    )


def test_a_converted_encoder_predicts_the_converted_coefficients():
    random = np.random.default_rng(0)
    kernel, bias = random.standard_normal((5, 2)), random.standard_normal(2)
    arrays = {"encoder/heads.albedo.kernel": kernel, "encoder/heads.albedo.bias": bias, "size": np.int32(128)}
    matrix, constant = random.standard_normal((2, 2)), random.standard_normal(2)
    new = converted_encoder(arrays, matrix, constant)
    features = random.standard_normal(5)
    found = features @ new["encoder/heads.albedo.kernel"] + new["encoder/heads.albedo.bias"]
    np.testing.assert_allclose(found, matrix @ (features @ kernel + bias) + constant)
    assert new["size"] == 128
    with pytest.raises(InputError, match="no encoder"):
        converted_encoder({}, matrix, constant)


def test_what_remains_of_a_basis_is_orthogonal_to_what_is_taken():
    random = np.random.default_rng(0)
    rest, taken = random.standard_normal((5, 40, 3)), random.standard_normal((2, 40, 3))
    weight = random.uniform(0.1, 1, 40)
    left = remaining(rest, taken, weight, 3)
    products = np.einsum("avc,bvc,v->ab", left, taken, weight)
    np.testing.assert_allclose(products, 0, atol=1e-9)
    assert left.shape == (3, 40, 3)


def test_a_learned_model_keeps_its_named_components_and_their_number():
    old = tiny_model()
    pale = 0.01 * np.ones_like(np.asarray(old.albedo_basis)[:1])
    new = with_learned(old, 1, 0 * pale[0], pale)
    assert new.albedo_basis.shape == old.albedo_basis.shape
    np.testing.assert_allclose(new.albedo_basis[0], old.albedo_basis[0], atol=1 / 4096)


def test_priors_have_a_size_for_every_pair(fold):
    model = tiny_model(subdivisions=2)
    assert priors_of(model, fold, 60.0).size.shape == (len(fold.pair),)


def test_what_cannot_be_learned_from_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match="no data set"):
        run(Arguments(tmp_path / "nothing", tmp_path / "out.npz"))
    monkeypatch.setattr(
        "sys.argv", ["learn_albedo", str(tmp_path / "nothing"), "-o", str(tmp_path / "o.npz")]
    )
    assert main() == 2
    told = capsys.readouterr().err
    assert told.startswith("error:") and told.count("\n") == 1
