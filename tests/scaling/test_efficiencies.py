"""Laws of differences: coverage, hold-out, exponents, pairing, what they refuse."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from gnomon.scaling import fit_efficiencies
from gnomon.scaling.paired import pair
from gnomon.scaling.selection import expected_best

WORTH = {"AdamW": (1.0, 1.0), "Muon": (1.05, 1.4), "Twin": (1.0, 1.0)}
N, D = (
    axis.ravel()
    for axis in np.meshgrid(np.geomspace(3e6, 8e7, 4), np.geomspace(2e8, 5e9, 4))
)
INSIDE = {"params": 1.6e7, "tokens": 1e9}
BEYOND = {"params": 1.6e8, "tokens": 1e10}


def law(label, n, d, slower=0.0, product=0.0):
    """A truth: `slower` changes Muon's exponent, `product` is no term of the law."""
    of_params, of_tokens = WORTH[label]
    slower = slower if label == "Muon" else 0.0
    size = 1.5 * (of_params * n / 1e7) ** -0.34
    length = 0.9 * (of_tokens * d / 1e9) ** -(0.37 - slower)
    return 1.8 + size + length + product * np.sqrt(size * length)


def runs(study=0, seeds=2, noise=0.003, misfit=0.0, cell=0.01, **of_law):
    """A table whose cells and seeds have luck of their own, as tables do."""
    rng = np.random.default_rng(study)
    shared = cell * rng.standard_normal((len(N), 1)) + 0.01 * rng.standard_normal(
        (len(N), seeds)
    )
    rows = []
    for label in WORTH:
        loss = (law(label, N, D, **of_law) + misfit * rng.standard_normal(len(N)))[
            :, None
        ] + shared
        loss = loss + noise * rng.standard_normal(loss.shape)
        rows += [
            (label, n, d, loss[c, seed], seed)
            for c, (n, d) in enumerate(zip(N, D, strict=True))
            for seed in range(seeds)
        ]
    names = ("label", "params", "tokens", "loss", "seed")
    return {k: np.array(v) for k, v in zip(names, zip(*rows, strict=True), strict=True)}


def fitted(*args, **kwargs):
    return fit_efficiencies(**runs(*args, **kwargs), baseline="AdamW", draws=200)


@pytest.mark.parametrize(
    "truth", [{}, {"misfit": 0.003, "product": 0.1}], ids=["the law", "another law"]
)
def test_intervals_hold_as_often_as_they_say(truth):
    studies = 24
    held = {}
    for study in range(studies):
        found = fitted(study, **truth)
        for label in ("Muon", "Twin"):
            gap = found.gap(label, **INSIDE, level=0.9)
            of_law = {k: v for k, v in truth.items() if k == "product"}
            true = law(label, *INSIDE.values(), **of_law) - law(
                "AdamW", *INSIDE.values(), **of_law
            )
            held.setdefault((label, "gap"), []).append(gap.low <= true <= gap.high)
            if not truth:
                worth = found.efficiency(label, 0.9)
                for which, (one, right) in enumerate(
                    zip(worth, WORTH[label], strict=True)
                ):
                    inside = one.low <= right <= one.high
                    held.setdefault((label, which), []).append(inside)
    counts = {name: sum(each) for name, each in held.items()}
    least, _ = stats.binom.interval(0.999, studies, 0.9)
    assert min(counts.values()) >= least, counts
    # A truth that is no law of this form widens intervals; it may not narrow them.
    most = (
        1.0
        if truth
        else stats.binom.ppf(0.9995, studies * len(counts), 0.9)
        / (studies * len(counts))
    )
    assert sum(counts.values()) <= most * studies * len(counts), counts


@pytest.fixture(scope="module")
def found():
    return fitted()


def test_the_largest_size_is_foretold_better_than_by_carrying_over(found):
    held = found.holdout("params")
    assert set(held.params) == {N.max()}
    assert held.label == ("Muon",) * 4 + ("Twin",) * 4
    assert held.error < held.carried_error
    assert held.error < 0.004
    assert held.covered >= 0.75
    # Nothing of the largest size was seen.
    assert held.fit.runs.params.max() < N.max()
    longest = found.holdout("tokens")
    assert set(longest.tokens) == {D.max()}
    assert set(longest.params) == set(N)
    budget = found.holdout("compute")
    assert set(budget.params * budget.tokens) == {N.max() * D.max()}


def test_a_speedup_is_the_baselines_need_for_the_same_loss(found):
    speedup = found.speedup("Muon", **INSIDE)
    base = found.parameters
    n, d = INSIDE.values()

    def loss(tokens):
        return (
            base["E"]
            + base["A"] / n ** base["alpha"]
            + base["B"] / tokens ** base["beta"]
        )

    gap = found.gap("Muon", **INSIDE)
    np.testing.assert_allclose(loss(speedup.value * d), loss(d) + gap.value, rtol=1e-9)
    assert speedup.low < speedup.value < speedup.high
    assert speedup.low > 1.2  # 1.4 of tokens, and a little of parameters
    twin = found.speedup("Twin", **BEYOND)
    assert twin.low < 1 < twin.high
    own = found.speedup("AdamW", params=[1e7, 1e8], tokens=1e9)
    np.testing.assert_array_equal(own, np.ones((3, 2)))


def test_what_all_optimizers_share_ranks_none(found):
    """Cells that lie off any law, by a hundred times the noise, move no gap."""
    table = runs()
    luck = np.random.default_rng(5).normal(0, 0.3, len(N))
    for n, d, extra in zip(N, D, luck, strict=True):
        here = (table["params"] == n) & (table["tokens"] == d)
        table["loss"][here] += extra + 1
    off = fit_efficiencies(**table, baseline="AdamW", draws=200)
    assert off.joint.ratio > found.joint.ratio
    there = off.gap("Muon", **INSIDE)
    assert abs(there.value - found.gap("Muon", **INSIDE).value) < 0.002
    assert there.high - there.low < 0.03  # a tenth of the luck


def test_an_exponent_of_its_own_is_found_and_none_where_there_is_none():
    table = runs(slower=0.04, noise=0.001)
    shared = fit_efficiencies(**table, baseline="AdamW", draws=200)
    own = shared.exponents("Muon")
    assert own.tokens.low < -0.04 < own.tokens.high < 0
    constant = fitted(noise=0.001).exponents("Muon")
    assert constant.tokens.low < 0 < constant.tokens.high
    freed = fit_efficiencies(**table, baseline="AdamW", draws=200, own=["Muon"])
    n, d = BEYOND.values()
    true = law("Muon", n, d, slower=0.04) - law("AdamW", n, d)
    errors = [abs(fit.gap("Muon", **BEYOND).value - true) for fit in (shared, freed)]
    assert errors[1] < errors[0] / 2
    # Where the law fails its hold-outs, intervals beyond the runs are wider.
    assert shared.widening > 1
    raw = dataclasses.replace(shared, calibrate=False).gap("Muon", **BEYOND)
    wide = shared.gap("Muon", **BEYOND)
    assert wide.high - wide.low > 1.2 * (raw.high - raw.low)
    assert shared.gap("Muon", **INSIDE) == dataclasses.replace(
        shared, calibrate=False
    ).gap("Muon", **INSIDE)


def test_units_do_not_matter(found):
    table = runs()
    table["tokens"] = table["tokens"] / 64
    table["params"] = table["params"] * 1e3
    other = fit_efficiencies(**table, baseline="AdamW", draws=200)
    there = other.gap("Muon", params=1e3 * 1.6e7, tokens=1e9 / 64)
    np.testing.assert_allclose(there, found.gap("Muon", **INSIDE), rtol=1e-4)


def test_a_search_that_tried_more_may_be_flattered(found):
    more = dataclasses.replace(found, searches={"AdamW": 4, "Muon": 64, "Twin": 4})
    before, after = (fit.gap("Muon", **INSIDE) for fit in (found, more))
    assert (after.value, after.low) == (before.value, before.low)
    bias = found.runs.noise * (expected_best(64) - expected_best(4))
    np.testing.assert_allclose(after.high - before.high, bias)
    assert more.speedup("Muon", **INSIDE).low < found.speedup("Muon", **INSIDE).low
    assert more.gap("Twin", **INSIDE) == found.gap("Twin", **INSIDE)
    assert any("Muon" in note and "best of 64" in note for note in more.notes)


def test_seeds_tell_noise_from_lack_of_fit(found):
    assert 0.002 < found.runs.noise < 0.004
    # Runs that lie off the law, beyond what their seeds explain.
    assert found.misfit(**INSIDE) < 0.003
    assert 0.006 < fitted(misfit=0.01).misfit(**INSIDE) < 0.015
    one = found.gap("Muon", **INSIDE, noise=True)
    mean = found.gap("Muon", **INSIDE)
    added = np.sqrt((one.high - one.low) ** 2 - (mean.high - mean.low) ** 2)
    of_noise = 2 * 1.96 * np.sqrt(2) * found.runs.noise
    np.testing.assert_allclose(added, of_noise, rtol=0.15)
    table = runs()
    del table["seed"]
    unpaired = fit_efficiencies(**table, baseline="AdamW", draws=200)
    assert unpaired.runs.noise > 0.007  # the luck of a seed is in it


def test_refusals_name_the_column(found):
    table = runs()
    with pytest.raises(ValueError, match="baseline='SGD': no run"):
        fit_efficiencies(**table, baseline="SGD")
    with pytest.raises(ValueError, match="own: 'SGD'"):
        fit_efficiencies(**table, baseline="AdamW", own=["SGD"])
    with pytest.raises(ValueError, match="searches: gives no number for AdamW, Twin"):
        fit_efficiencies(**table, baseline="AdamW", searches={"Muon": 3})
    with pytest.raises(ValueError, match="label='SGD'"):
        found.gap("SGD", **INSIDE)
    with pytest.raises(ValueError, match="params: 1 of 1"):
        found.gap("Muon", params=-1, tokens=1e9)
    with pytest.raises(ValueError, match="by='depth'"):
        found.holdout("depth")
    thin = (table["label"] != "Twin") | (table["tokens"] == D.max()) & (
        table["params"] < 3e7
    )
    few = {name: column[thin] for name, column in table.items()}
    assert pair(**few, baseline="AdamW").gaps().shape == (3, 16)
    few = {name: column[:-2][thin[:-2]] for name, column in table.items()}
    few = {
        name: column[(few["label"] != "Twin") | (few["params"] > 5e6)]
        for name, column in few.items()
    }
    with pytest.raises(ValueError, match="Twin shares 2 cells"):
        fit_efficiencies(**few, baseline="AdamW")
