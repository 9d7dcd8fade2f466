"""Every other law: noise-free runs give its constants back; bad ones are refused."""

import numpy as np
import pytest

from gnomon.scaling import (
    envelope,
    extrapolate_curve,
    fit_chinchilla,
    fit_compute,
    fit_critical_batch,
    fit_data_constrained,
    fit_kaplan,
    fit_ladder,
    fit_loss_to_loss,
    fit_power,
    isoflop,
    optima,
)


def grid(*axes):
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


def test_compute_law_predicts_a_thousandfold_with_an_interval():
    compute = np.geomspace(1e15, 1e19, 24)
    rng = np.random.default_rng(1)
    loss = (1.7 + 300 * compute**-0.15) * np.exp(0.002 * rng.standard_normal(24))
    law = fit_compute(compute=compute, loss=loss)
    found = law.predict_interval(compute=1e22)
    assert found.low < 1.7 + 300 * 1e22**-0.15 < found.high
    assert found.high - found.low < 0.3


def test_power_laws_need_columns_that_vary_apart():
    size = np.geomspace(1e6, 1e9, 6)
    rate = 0.1 * size**-0.3
    with pytest.raises(ValueError, match="params, tokens: are powers of each other"):
        fit_power("learning_rate", learning_rate=rate, params=size, tokens=20 * size)
    with pytest.raises(ValueError, match="target='loss'"):
        fit_power("loss", learning_rate=rate, params=size)


def test_optimal_rates_of_a_sweep_follow_their_law():
    """From a grid of rates to the law: Step Law's N^-0.7 D^0.3 is read back."""
    n, d, factor = grid([1e7, 4e7, 2e8], [1e9, 5e9], 2.0 ** np.arange(-3, 4))
    best = 1.8 * n**-0.7 * d**0.3
    rate = 4e-3 * factor * (n / 4e7) ** -0.7 * (d / 2e9) ** 0.3
    loss = 3 + 0.05 * np.log(rate / best) ** 2
    runs = {"params": n, "tokens": d, "learning_rate": rate, "loss": loss}
    table = optima(runs, "learning_rate", within=("params", "tokens"))
    loss = table.pop("loss")
    law = fit_power("learning_rate", **table)
    np.testing.assert_allclose(loss, 3, atol=1e-9)
    np.testing.assert_allclose([law.params, law.tokens], [-0.7, 0.3], rtol=1e-6)


def test_an_optimum_at_the_edge_of_its_grid_is_no_optimum():
    rates = np.array([1e-3, 2e-3, 4e-3])
    runs = {"params": [1e6] * 3, "learning_rate": rates, "loss": 1 + rates}
    with pytest.raises(ValueError, match=r"learning_rate: at no scale.*widen"):
        optima(runs, "learning_rate", within=("params",))


def test_critical_batch_with_noise_is_inside_its_interval():
    batch = np.geomspace(8, 8192, 11)
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(11))
    law = fit_critical_batch(batch=batch, steps=1000 * (1 + 500 / batch) * noise)
    low, high = law.interval("critical_batch", level=0.99)
    assert 0 < low < 500 < high < 2000
    assert law.conditioning.reduced == 1.0  # no exponent to be told apart


def test_kaplan_law_finds_its_constants_and_predicts_without_the_loss():
    n, s, b = grid(
        np.geomspace(1e6, 1e8, 3), np.geomspace(1e3, 1e5, 4), np.geomspace(3e4, 2e6, 3)
    )
    loss = np.full(n.shape, 3.0)
    for _ in range(100):  # the law holds its own left side; damped iteration solves it
        least = s / (1 + 2e8 * loss ** (-1 / 0.21) / b)
        loss = 0.5 * loss + 0.5 * ((8.8e13 / n) ** 0.076 + (2100 / least) ** 0.76)
    law = fit_kaplan(params=n, steps=s, batch=b, loss=loss)
    truth = [8.8e13, 2100, 0.076, 0.76, 2e8, 0.21]
    np.testing.assert_allclose(list(law.parameters.values()), truth, rtol=1e-4)
    assert law.inputs == ("params", "steps", "batch")
    np.testing.assert_allclose(law.predict(params=n, steps=s, batch=b), loss, rtol=1e-8)


def test_data_constrained_law_finds_both_rates_of_decay():
    unique, n, epochs = grid(
        np.geomspace(1e8, 1e10, 3), np.geomspace(1e7, 1e9, 3), [1.0, 3.0, 12.0, 40.0]
    )
    tokens = unique * epochs
    optimal = (0.35 * 500 / (0.37 * 2100) * unique**0.37) ** (1 / 0.35)
    own = np.minimum(n, optimal)
    size = own * (1 + 5.3 * (1 - np.exp(-(n / own - 1) / 5.3)))
    data = unique * (1 + 15.4 * (1 - np.exp(-(tokens / unique - 1) / 15.4)))
    loss = 1.8 + 500 / size**0.35 + 2100 / data**0.37
    runs = {"params": n, "tokens": tokens, "unique": unique, "loss": loss}
    law = fit_data_constrained(**runs)
    truth = [1.8, 500, 2100, 0.35, 0.37, 15.4, 5.3]
    np.testing.assert_allclose(list(law.parameters.values()), truth, rtol=1e-4)
    with pytest.raises(ValueError, match="unique: exceeds tokens in 36 runs"):
        fit_data_constrained(**{**runs, "unique": 50 * tokens})
    with pytest.raises(ValueError, match="no run repeats tokens; use fit_chinchilla"):
        fit_data_constrained(**{**runs, "unique": tokens})


def test_loss_to_loss_with_a_known_floor_has_three_unknowns():
    source = np.linspace(2.2, 4.0, 8)
    loss = 1.1 + 0.8 * (source - 1.7) ** 1.2
    law = fit_loss_to_loss(source=source, loss=loss, floor=1.7)
    np.testing.assert_allclose([law.E1, law.K, law.kappa], [1.1, 0.8, 1.2], rtol=1e-5)
    assert law.freedom == 5
    with pytest.raises(ValueError, match=r"floor=2.5: must be.*below.*2.2"):
        fit_loss_to_loss(source=source, loss=loss, floor=2.5)


def test_ladder_carries_the_errors_of_both_steps(chinchilla_runs):
    runs = chinchilla_runs(noise=0.002)
    rng = np.random.default_rng(3)
    accuracy = 0.25 + 0.7 / (1 + np.exp(3 * (runs["loss"] - 2.3)))
    accuracy = accuracy * np.exp(0.01 * rng.standard_normal(48))
    at = {"params": 7e10, "tokens": 1.4e12}
    ladder = fit_ladder(**runs, accuracy=accuracy, bootstrap=40)
    chained = ladder.predict(**at)
    truth = 0.25 + 0.7 / (1 + np.exp(3 * (1.9738 - 2.3)))
    assert chained.low < truth < chained.high
    assert chained.low < chained.value < chained.high
    plain = fit_ladder(**runs, accuracy=accuracy).predict(**at)
    assert plain.value == pytest.approx(chained.value)


def test_a_settled_curve_stops_early_and_a_moving_one_never():
    units = np.arange(1, 21) * 1000.0
    loss = 0.03 + 2 * units**-0.4
    clean = extrapolate_curve(units=units, loss=loss, target=1e6)
    assert clean.stop == 9  # the first fit at 6 rows, then three that agree
    np.testing.assert_allclose(clean.predicted, 0.03 + 2 * 1e6**-0.4, rtol=1e-5)
    rough = loss * np.where(np.arange(20) % 6 < 3, 1.2, 0.8)
    moving = extrapolate_curve(units=units, loss=rough, target=1e6, tolerance=1e-4)
    assert moving.stop is None
    assert len(moving.seen) == 15
    with pytest.raises(ValueError, match="units: must rise"):
        extrapolate_curve(units=units[::-1], loss=loss, target=1e6)


def isoflop_runs(low, high, drift=0.0, alpha=0.3, beta=0.5):
    """Noise-free runs; each budget's sizes lie around its optimum, or drift off it."""
    budget = np.geomspace(1e18, 1e21, 5)
    balance = alpha * 480 / (beta * 2100)
    best = balance ** (1 / (alpha + beta)) * (budget / 6) ** (beta / (alpha + beta))
    center = best * (budget / 1e18) ** drift
    params = (center[:, None] * np.geomspace(low, high, 9)).ravel()
    compute = np.repeat(budget, 9)
    loss = 1.8 + 480 / params**alpha + 2100 / (compute / 6 / params) ** beta
    return {"params": params, "compute": compute, "loss": loss}, best


def test_isoflop_parabolas_are_biased_without_noise_and_the_law_is_not():
    """Sizes a factor 10 to both sides: the vertex is 12 % low; at a factor 3, 3 %.

    Where the sizes drift off the optimum as compute grows, so does the exponent.
    """
    for width, bias in ((10, 0.879), (3, 0.971)):
        runs, best = isoflop_runs(1 / width, width)
        found = isoflop(**runs)
        np.testing.assert_allclose(found.params / best, bias, atol=1e-3)
        assert found.law.compute == pytest.approx(0.625, abs=1e-6)
    runs, _ = isoflop_runs(0.3, 3, drift=0.1)
    drifted = isoflop(**runs)
    assert abs(drifted.law.compute - 0.625) > 0.005
    tokens = runs["compute"] / 6 / runs["params"]
    law = fit_chinchilla(params=runs["params"], tokens=tokens, loss=runs["loss"])
    assert law.optimal(1e24).exponent.value == pytest.approx(0.625, abs=1e-7)


def test_envelope_minima_are_sizes_that_were_run_and_their_losses_too_high():
    runs, best = isoflop_runs(0.25, 4.7)
    found = envelope(**runs, bins=5)
    assert set(found.params) <= set(runs["params"])
    assert np.abs(found.params / best - 1).min() > 0.05
    floor = 1.8 + 480 / best**0.3 + 2100 / (found.compute / 6 / best) ** 0.5
    assert (found.loss > floor).all()
    with pytest.raises(ValueError, match="bins=2: only 2 hold rows"):
        envelope(**runs, bins=2)
