"""The solver against independent solvers, and the promises it makes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from gnomon.scaling import complex_step, fit_chinchilla, power_terms
from gnomon.scaling.chinchilla import chinchilla_form
from gnomon.scaling.nonnegative import nonnegative_least_squares
from gnomon.scaling.solver import search, solve


@given(seed=st.integers(0, 10**6), unknowns=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_nonnegative_least_squares_agrees_with_lawson_and_hanson(seed, unknowns):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((5, 9, unknowns)) * 10.0 ** rng.integers(
        -3, 3, unknowns
    )
    right = rng.standard_normal((5, 9))
    gram = matrix.swapaxes(1, 2) @ matrix
    found = nonnegative_least_squares(gram, np.einsum("snj,sn->sj", matrix, right))
    for k in range(5):
        expected, _ = optimize.nnls(matrix[k], right[k])
        # Compared as predictions: columns differ by orders of magnitude.
        np.testing.assert_allclose(
            matrix[k] @ found[k], matrix[k] @ expected, atol=1e-9
        )


def test_no_other_optimizer_finds_a_lower_objective(chinchilla_runs):
    """Nelder-Mead with restarts from the truth and from the answer, on all five."""
    runs = chinchilla_runs(noise=0.005)
    fit = fit_chinchilla(**runs)
    n, d, log_loss = runs["params"], runs["tokens"], np.log(runs["loss"])

    def objective(p):
        e, a, b, alpha, beta = p
        log = np.logaddexp(a - alpha * np.log(n), b - beta * np.log(d))
        return special.huber(1e-3, np.logaddexp(log, e) - log_loss).sum()

    truth = [np.log(1.817), np.log(482.0), np.log(2085.0), 0.348, 0.366]
    here = [np.log(fit.E), np.log(fit.A), np.log(fit.B), fit.alpha, fit.beta]
    assert objective(here) == pytest.approx(float(fit.solution.value), rel=1e-9)
    options = {"maxiter": 3000, "maxfev": 3000, "xatol": 1e-9, "fatol": 1e-14}
    for start in (truth, here):
        found = optimize.minimize(
            objective, start, method="Nelder-Mead", options=options
        )
        assert fit.solution.value <= found.fun * (1 + 1e-7)


@pytest.mark.parametrize(("alpha", "beta"), [(0.07, 0.6), (0.9, 0.2), (0.35, 0.36)])
def test_every_exponent_is_found_without_a_starting_point(alpha, beta):
    n, d = np.meshgrid(np.geomspace(1e6, 1e10, 6), np.geomspace(1e8, 1e12, 6))
    n, d = n.ravel(), d.ravel()
    loss = 1.5 + 1.3 * (n / 1e8) ** -alpha + 0.4 * (d / 1e10) ** -beta
    fit = fit_chinchilla(params=n, tokens=d, loss=loss)
    np.testing.assert_allclose([fit.E, fit.alpha, fit.beta], [1.5, alpha, beta], 1e-5)


def test_two_fits_of_the_same_runs_are_bitwise_equal(chinchilla_runs):
    runs = chinchilla_runs(noise=0.005)
    first, second = (fit_chinchilla(**runs, bootstrap=20) for _ in range(2))
    assert first.parameters == second.parameters
    np.testing.assert_array_equal(first.draws.theta, second.draws.theta)


def test_the_best_grid_point_is_a_local_minimum_and_comes_first(chinchilla_runs):
    runs = chinchilla_runs()
    columns = {name: runs[name] for name in ("params", "tokens")}
    form = chinchilla_form(**columns)
    starts = search(form, columns, np.log(runs["loss"]), 1e-3)
    assert (np.diff(starts.value) >= 0).all()
    assert solve(form, columns, runs["loss"]).value <= starts.value[0]


def test_a_term_the_data_does_not_have_gets_no_weight():
    """Loss that rises a little with size: A must vanish, not turn negative."""
    n, d = np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 5))
    n, d = n.ravel(), d.ravel()
    fit = fit_chinchilla(
        params=n, tokens=d, loss=1.5 * (n / 1e7) ** 0.02 + 300 * d**-0.3
    )
    assert 0 <= fit.A / n.min() ** fit.alpha < 1e-2


def test_slopes_by_formula_and_by_complex_step_agree():
    columns = {"a": np.array([0.5, 2.0, 9.0]), "b": np.array([3.0, 1.0, 0.2])}
    formula = power_terms([{}, {0: ("a", 1.5)}, {0: ("a", 1.0), 1: ("b", 2.0)}], 2)
    stepped = complex_step(lambda theta, x: formula(theta, x)[0])
    theta = np.array([[0.3, 0.8], [-1.0, 0.1]])
    for one, other in zip(
        formula(theta, columns), stepped(theta, columns), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)
