"""Effective speedup: exact where truth is known, honest where it is not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from gnomon.scaling.comparison.cell import Cell, Setting
from gnomon.scaling.comparison.isotonic import decreasing, needed
from gnomon.scaling.comparison.power import fit_power
from gnomon.scaling.comparison.resampling import (
    NO_INTERVAL,
    interval,
    seed_weights,
    widening,
)
from gnomon.scaling.comparison.scale import Scale
from gnomon.scaling.comparison.speedup import compare
from gnomon.scaling.comparison.summary import summarize

LENGTHS = (100.0, 200.0, 400.0)


def _law(compute):
    """Two straight segments in log compute, so that interpolation is exact."""
    return np.interp(np.log(compute), np.log([1e9, 2e9, 4e9]), [3.0, 2.5, 2.2])


def _cell(label, losses, *, steps=100.0, compute=1e9, model=(), size=1e4, rates=3):
    """A cell whose middle learning rate has these losses, a seed each."""
    losses = np.asarray(losses, float)
    seeds = tuple(range(len(losses)))
    settings = tuple(
        Setting(
            values={},
            learning_rate=rate,
            losses=losses + penalty,
            statuses=("finished",) * len(seeds),
            trials=tuple(f"{label}{steps}{rate}{seed}" for seed in seeds),
        )
        for rate, penalty in [(0.1, 1.0), (0.2, 0.0), (0.4, 1.0)][:rates]
    )
    scale = Scale(f"{model} {steps:g} steps", model, (), steps, size)
    status = "tuned" if rates == 3 else "edge"
    return Cell(label, scale, seeds, settings, 1, status, compute)


def _baseline(losses=None, noise=(0.0, 0.0, 0.0), **fields):
    computes = 1e9 * np.array([1.0, 2.0, 4.0])
    losses = _law(computes) if losses is None else losses
    return [
        _cell("A", loss + np.array(noise), steps=steps, compute=compute, **fields)
        for loss, steps, compute in zip(losses, LENGTHS, computes, strict=True)
    ]


def _compare(cell, baseline):
    return compare(cell, baseline, seed_weights([c.seeds for c in [cell, *baseline]]))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_the_decreasing_fit_is_isotonic_regression(losses):
    x = np.arange(float(len(losses)))
    _, fit = decreasing(x, np.array([losses]))
    oracle = optimize.isotonic_regression(losses, increasing=False).x
    np.testing.assert_allclose(fit[0], oracle, atol=1e-9)


def test_the_compute_needed_inverts_the_curve_inside_and_beyond_it():
    x, y = decreasing(np.array([0.0, 1.0, 3.0]), np.array([[5.0, 3.0, 2.0]] * 6))
    losses = np.array([6.0, 5.0, 4.0, 3.0, 2.5, 1.5])
    np.testing.assert_allclose(needed(x, y, losses), [-0.5, 0.0, 0.5, 1.0, 2.0, 4.0])


def test_a_curve_that_never_falls_gives_no_compute():
    x, y = decreasing(np.array([0.0, 1.0]), np.array([[2.0, 3.0]]))
    assert np.isnan(needed(x, y, np.array([2.5]))).all()


@pytest.mark.parametrize("planted", [0.8, 1.0, 1.3, 1.9])
def test_a_planted_speedup_is_read_exactly(planted):
    cell = _cell("B", [_law(2e9 * planted)] * 3, steps=200.0, compute=2e9)
    found = _compare(cell, _baseline())
    assert np.exp(found.log_speedup) == pytest.approx(planted, rel=1e-9)
    assert (found.curve, found.extrapolated) == ("steps", False)


def test_cheaper_for_the_same_loss_is_faster():
    cell = _cell("B", [_law(2e9)] * 3, steps=999.0, compute=1e9)
    assert np.exp(_compare(cell, _baseline()).log_speedup) == pytest.approx(2.0)


def test_equal_losses_give_one_even_on_a_curve_that_rises():
    base = _baseline(losses=[3.0, 2.4, 2.5], noise=(0.0, 0.02, -0.01))
    for own in base:
        found = _compare(dataclasses.replace(own, label="B"), base)
        assert found.log_speedup == pytest.approx(0.0, abs=1e-12)
        np.testing.assert_allclose(found.log_interval, 0.0, atol=1e-9)
        assert found.pooled


def test_the_sign_agrees_with_the_losses_at_equal_compute():
    base = _baseline(losses=[3.0, 2.4, 2.5])
    for gap in (-0.05, 0.05):
        cell = _cell("B", base[2].optimum.losses + gap, steps=400.0, compute=4e9)
        assert np.sign(_compare(cell, base).log_speedup) == -np.sign(gap)


def test_a_little_beyond_the_curve_is_marked_and_far_beyond_is_a_bound():
    slope = 0.3 / np.log(2)
    near = _cell("B", [2.2 - slope * np.log(1.5)] * 3, steps=400.0, compute=4e9)
    found = _compare(near, _baseline())
    assert found.extrapolated
    assert not found.bounded
    assert np.exp(found.log_speedup) == pytest.approx(1.5)
    far = _cell("B", [2.2 - slope * np.log(3.0)] * 3, steps=400.0, compute=4e9)
    found = _compare(far, _baseline())
    assert found.bounded
    assert np.exp(found.limits[1]) == pytest.approx(2.0)


def test_across_models_when_each_was_run_at_one_length():
    base = [
        _cell("A", [_law(c)] * 3, compute=c, model=(("model.width", w),), size=w**2)
        for w, c in ((16.0, 1e9), (32.0, 2e9), (64.0, 4e9))
    ]
    model = (("model.width", 32.0),)
    cell = _cell("B", [_law(2.4e9)] * 3, compute=2e9, model=model, size=32.0**2)
    found = _compare(cell, base)
    assert found.curve == "scales"
    assert np.exp(found.log_speedup) == pytest.approx(1.2)


def test_a_single_compute_says_why_there_is_no_speedup():
    found = _compare(_cell("B", [2.9, 2.8, 2.85]), _baseline()[:1])
    assert "one compute only" in found.reason
    assert found.difference == pytest.approx(2.85 - 3.0)
    assert found.difference_interval[1] < 0


def test_untuned_cells_are_not_compared():
    cell = _cell("B", [2.5] * 3, steps=200.0, compute=2e9, rates=2)
    assert _compare(cell, _baseline()).reason == "B is untuned: optimum at grid edge"
    untuned = [_cell("A", [2.5] * 3, steps=200.0, compute=2e9, rates=2)]
    found = _compare(_cell("B", [2.5] * 3, steps=200.0, compute=2e9), untuned)
    assert found.reason == "the baseline is untuned: optimum at grid edge"


def test_an_untuned_point_of_the_baseline_is_left_out_of_its_curve():
    base = _baseline()
    bad = _cell("A", [9.0] * 3, steps=200.0, compute=2e9, rates=2)
    found = _compare(
        _cell("B", [2.6] * 3, steps=200.0, compute=2e9), [base[0], bad, base[2]]
    )
    # Halfway in loss between 3.0 and 2.2 is halfway in log compute: 2e9.
    assert np.exp(found.log_speedup) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_for_a_mean_the_interval_is_close_to_students(n):
    """Exact for two seeds; for more, the discrete draws come within a fifth."""
    rng = np.random.default_rng(n)
    weights = seed_weights([tuple(range(n))])[tuple(range(n))]
    ratios = []
    for _ in range(50):
        x = rng.standard_normal(n)
        low, high = interval(x.mean(), weights @ x, n)
        half = stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / np.sqrt(n)
        ratios.append((high - low) / (2 * half))
    assert np.mean(ratios) == pytest.approx(1.0, abs=1e-2 if n == 2 else 0.2)


def test_widening_approaches_one_with_many_seeds():
    factors = [widening(n) for n in range(2, 200)]
    assert all(np.diff(factors) < 0)
    assert factors[-1] == pytest.approx(1.0, abs=0.02)


def test_one_seed_has_no_interval():
    base = _baseline(noise=(0.0,))
    found = _compare(_cell("B", [2.4], steps=200.0, compute=2e9), base)
    assert found.log_interval == NO_INTERVAL
    assert np.isfinite(found.log_speedup)


def test_shared_luck_of_a_seed_cancels():
    """Noise that all cells share by seed moves no bound of the difference."""
    luck = (0.1, -0.05, 0.0)
    cell = _cell("B", 2.45 + np.array(luck), steps=200.0, compute=2e9)
    found = _compare(cell, _baseline(noise=luck))
    np.testing.assert_allclose(found.difference_interval, -0.05, atol=1e-9)


def test_a_draw_without_an_answer_opens_the_interval():
    draws = np.zeros(1000)
    draws[:50] = np.nan
    assert interval(0.0, draws, 3) == (-np.inf, np.inf)


def test_the_trend_over_model_sizes_is_the_planted_one():
    """Log speedup falling by 0.1 a doubling, with no noise: a slope of -0.1."""
    comparisons = []
    for k, width in enumerate((16.0, 32.0, 64.0)):
        model = (("model.width", width),)
        base = _baseline(model=model, size=2.0**k)
        planted = 1.4 * np.exp(-0.1 * k)
        loss = _law(2e9 * planted)
        cell = _cell(
            "B", [loss] * 3, steps=200.0, compute=2e9, model=model, size=2.0**k
        )
        comparisons.append(_compare(cell, base))
    found = summarize("B", comparisons)
    assert found.slope == pytest.approx(-0.1)
    assert np.exp(found.log_speedup) == pytest.approx(1.4 * np.exp(-0.1))
    assert (found.sizes, found.scales) == (3, (3, 3))


def _powers(count, noise):
    """A baseline on a power law, at lengths a factor 2 apart."""
    computes = 1e9 * 2.0 ** np.arange(count)
    return [
        _cell("A", 2 + (c / 1e9) ** -0.4 + noise, steps=c / 1e7, compute=c)
        for c in computes
    ]


def test_a_fitted_power_law_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    x = np.log(2.0 ** np.arange(5))
    losses = 2 + np.exp(-0.4 * x) + 0.005 * rng.standard_normal((6, 5))
    found = fit_power(x, losses)
    for row, loss in enumerate(losses):
        start = [2.0, 1.0, 0.4]
        oracle = optimize.least_squares(
            lambda p, y=loss: p[0] + p[1] * np.exp(-p[2] * (x - x.mean())) - y, start
        )
        law = found.floor[row], found.gain[row], found.exponent[row]
        np.testing.assert_allclose(law, oracle.x, rtol=2e-3)


def test_on_request_a_speedup_is_read_off_a_power_law_through_four_lengths():
    noise = np.array([0.0, 0.01, -0.01])
    base = _powers(4, noise)
    weights = seed_weights([base[0].seeds])

    def speedup(cell, lengths=4, **how):
        return compare(cell, base[:lengths], weights, **how)

    fast = _cell("B", 2 + 2.6**-0.4 + noise, steps=200.0, compute=2e9)
    one = speedup(fast, power=True)
    np.testing.assert_allclose(np.exp(one.log_speedup), 1.3, rtol=1e-4)
    assert one.power
    assert one.p < 1e-3
    assert np.exp(speedup(fast).log_speedup) > 1.305, "a straight line overstates it"
    short = speedup(fast, lengths=3, power=True)
    assert not short.power
    assert short.log_speedup == speedup(fast, lengths=3).log_speedup
    below = speedup(_cell("B", 1.9 + noise, steps=200.0, compute=2e9), power=True)
    assert below.bounded
    assert np.isfinite(below.log_interval).all()


def test_where_no_compute_is_known_that_is_the_reason():
    mine, base = (_cell(label, [3.0, 3.1], compute=np.nan) for label in "BA")
    found = _compare(mine, [base])
    assert found.reason == "the compute of the baseline is not known"
    assert found.difference == 0
