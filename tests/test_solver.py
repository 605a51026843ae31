"""The solver against dense linear algebra and classic problems; it is tested without any face."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from facefit.fit.solver import (
    Linearization,
    begin,
    equations,
    levenberg_marquardt_step,
    prior_equations,
)

SHARED, VIEW, VIEWS, ROWS = 5, 3, 6, 7


@functools.partial(jax.jit, static_argnames=("residuals",))
def dense_equations(residuals, shared, view, datum):
    """Normal equations of `residuals` with derivatives by a plain forward sweep, and their energy."""
    s, to_shared = ravel_pytree(shared)
    v, to_view = ravel_pytree(view)

    def flat(s, v):
        return residuals(to_shared(s), to_view(v), datum)

    line = Linearization(flat(s, v), jax.jacfwd(flat, 0)(s, v), jax.jacfwd(flat, 1)(s, v))
    return equations(line), {"all": jnp.sum(line.residual**2)}, datum


def step(solution, data, residuals, prior):
    """One step; `data` has one entry for each view."""
    return levenberg_marquardt_step(
        solution,
        prepare=lambda shared, views: data,
        linearize=functools.partial(dense_equations, residuals),
        energies=lambda shared, view, datum: {"all": jnp.sum(residuals(shared, view, datum) ** 2)},
        prior=functools.partial(prior_equations, prior),
        prior_energy=lambda shared: jnp.sum(prior(shared) ** 2),
    )


def apart(stacked):
    """The entries of a pytree with a leading axis."""
    leaves, tree = jax.tree.flatten(stacked)
    return [tree.unflatten(parts) for parts in zip(*leaves, strict=True)]


def linear(shared, view, datum):
    """Residuals of the linear problem; parameters are pytrees of several leaves, as a fit's are."""
    a, b, y = datum
    return a @ jnp.concatenate([shared["p"], shared["q"]]) + b @ jnp.append(view["u"], view["w"]) - y


def linear_prior(shared):
    return 0.1 * jnp.concatenate([shared["p"], shared["q"] - 1])


def linear_problem(seed: int = 0):
    random = np.random.default_rng(seed)
    a = random.normal(size=(VIEWS, ROWS, SHARED))
    b = random.normal(size=(VIEWS, ROWS, VIEW)) * [1, 30, 1000]  # units differ, as pixels and radians do
    y = random.normal(size=(VIEWS, ROWS))
    data = tuple(jnp.float32(part) for part in (a, b, y))
    start = (
        {"p": jnp.float32([1, 2]), "q": jnp.float32([3, -1, 0])},
        apart(
            {"u": jnp.float32(random.normal(size=(VIEWS, 2))), "w": jnp.float32(random.normal(size=VIEWS))}
        ),
    )
    return apart(data), start


def dense_system(data):
    """The same problem as one matrix: columns are shared, then each view's."""
    a, b, y = (np.stack(parts).astype(np.float64) for parts in zip(*data, strict=True))
    matrix = np.zeros((VIEWS * ROWS + SHARED, SHARED + VIEWS * VIEW))
    for n in range(VIEWS):
        rows = slice(n * ROWS, (n + 1) * ROWS)
        matrix[rows, :SHARED] = a[n]
        matrix[rows, SHARED + n * VIEW : SHARED + (n + 1) * VIEW] = b[n]
    matrix[VIEWS * ROWS :, :SHARED] = 0.1 * np.eye(SHARED)
    return matrix, np.concatenate([y.ravel(), [0, 0, 0.1, 0.1, 0.1]])


def flat(shared, views):
    each = [np.append(view["u"], view["w"]) for view in views]
    return np.concatenate([shared["p"], shared["q"], *each]).astype(np.float64)


def test_one_undamped_step_solves_a_linear_problem():
    data, start = linear_problem()
    solution = step(begin(*start, damping=0.0), data, linear, linear_prior)
    matrix, right = dense_system(data)
    expected, *_ = np.linalg.lstsq(matrix, right)
    found = flat(solution.shared, solution.views)
    # Normal equations in single precision square the condition number, here about 20 after scaling.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert float(solution.energy) == pytest.approx(np.sum((matrix @ expected - right) ** 2), rel=1e-4)
    assert int(solution.accepted) == 1 and bool(solution.finite)


def test_a_damped_step_is_marquardt_s():
    """(H + damping diag H) step = gradient, whatever the units of the parameters."""
    data, start = linear_problem(1)
    solution = step(begin(*start, damping=0.7), data, linear, linear_prior)
    matrix, right = dense_system(data)
    x = flat(*start)
    hessian = matrix.T @ matrix
    expected = x - np.linalg.solve(
        hessian + 0.7 * np.diag(np.diagonal(hessian)), matrix.T @ (matrix @ x - right)
    )
    scale = 1 / np.sqrt(np.diagonal(hessian))
    np.testing.assert_allclose(flat(solution.shared, solution.views) / scale, expected / scale, atol=2e-3)
    assert float(solution.damping) < 0.7


def rosenbrock(shared, view, datum):
    """One valley a view: steep across, nearly flat along."""
    return datum * (view - shared[0] ** 2)


def rosenbrock_prior(shared):
    return 1.0 - shared


def test_the_bent_valley_is_followed_to_its_end_and_the_energy_never_rises():
    data = jnp.float32([10.0, 4.0])
    solution = begin(jnp.float32([-1.2]), [jnp.float32([1.0]), jnp.float32([3.0])])
    energies, taken = [], []
    for _ in range(40):
        solution = step(solution, data, rosenbrock, rosenbrock_prior)
        energies.append(float(solution.energy))
        taken.append(int(solution.accepted))
    np.testing.assert_allclose(solution.shared, [1], atol=1e-3)
    np.testing.assert_allclose(solution.views, [[1], [1]], atol=2e-3)
    assert (np.diff(energies) <= 0).all()
    assert energies[-1] < 1e-6
    # Plain Gauss-Newton would leap up the walls: some trial was turned down on the way.
    assert taken[12] < 13 and (np.diff(taken) >= 0).all()


def logarithm(shared, view, datum):
    return jnp.log(view) + shared - datum


def logarithm_prior(shared):
    return shared


def test_a_trial_where_the_residual_is_not_finite_is_not_taken():
    """Newton's first step from 5 leads to a negative number, of which there is no logarithm."""
    data = jnp.float32([[-3.0]])
    solution = begin(jnp.zeros(1), [jnp.float32([5.0])], damping=1e-3)
    first = step(solution, data, logarithm, logarithm_prior)
    assert int(first.accepted) == 0 and float(first.damping) > 1e-3
    np.testing.assert_array_equal(first.views, [[5.0]])
    assert bool(first.finite) and float(first.energy) == pytest.approx((np.log(5) + 3) ** 2, rel=1e-5)
    solution = first
    for _ in range(40):
        solution = step(solution, data, logarithm, logarithm_prior)
        assert np.isfinite(solution.views).all()
    np.testing.assert_allclose(solution.views, [[np.exp(-3)]], rtol=1e-3)
    np.testing.assert_allclose(solution.shared, [0], atol=1e-3)


def test_a_start_that_is_not_finite_is_an_outcome_and_nothing_moves():
    start = begin(jnp.zeros(1), [jnp.float32([-2.0])])
    solution = step(start, jnp.float32([[1.0]]), logarithm, logarithm_prior)
    assert not bool(solution.finite) and int(solution.accepted) == 0
    np.testing.assert_array_equal(solution.views, [[-2.0]])
    np.testing.assert_array_equal(solution.shared, [0.0])


def test_the_order_of_the_views_does_not_matter():
    data, (shared, views) = linear_problem(2)
    order = np.array([3, 0, 5, 1, 4, 2])
    straight = step(begin(shared, views, damping=0.1), data, linear, linear_prior)
    shuffled = step(
        begin(shared, [views[n] for n in order], damping=0.1),
        [data[n] for n in order],
        linear,
        linear_prior,
    )
    for name in ("p", "q"):  # but for the order of summation
        np.testing.assert_allclose(shuffled.shared[name], straight.shared[name], rtol=1e-4, atol=1e-4)
    for place, n in enumerate(order):
        for name in ("u", "w"):
            found, expected = shuffled.views[place][name], straight.views[n][name]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_parameter_that_nothing_depends_on_stays():
    """Such as the focal length of a group without photographs: its row of the matrix is zero."""
    data = jnp.float32([[2.0]])

    def residuals(shared, view, datum):
        return view[:1] - datum

    def prior(shared):
        return shared[:1] - 3.0

    solution = begin(jnp.float32([0, 7]), [jnp.float32([0, -4])], damping=1e-6)
    solution = step(solution, data, residuals, prior)
    np.testing.assert_allclose(solution.shared, [3, 7], atol=1e-4)
    np.testing.assert_allclose(solution.views, [[2, -4]], atol=1e-4)
