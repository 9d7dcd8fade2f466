"""From run tables to fits, hold-outs and the checklist."""

import numpy as np
import pytest

from gnomon.scaling import (
    checklist,
    fit_chinchilla,
    fit_compute,
    holdout,
    select,
)


class Frame:
    """As much of a DataFrame as a run table needs."""

    def __init__(self, columns):
        self.columns = columns

    def __iter__(self):
        return iter(self.columns)

    def __contains__(self, name):
        return name in self.columns

    def __getitem__(self, name):
        return list(self.columns[name])


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="tokens: no such column; the table has loss"):
        select({"loss": [1.0]}, "tokens")


def test_holdout_of_the_true_law_predicts_the_largest_runs(chinchilla_runs):
    runs = chinchilla_runs(noise=0.003)
    compute = 6 * runs["params"] * runs["tokens"]
    held = holdout(fit_chinchilla, Frame(runs), by=compute.round(-15), share=0.15)
    assert len(held.rows) == 8  # the whole largest budget, ties included
    assert held.rms < 0.02
    assert held.covered >= 0.75
    assert held.reach == pytest.approx(500 ** (1 / 5), rel=1e-3)
    assert set(held.rows).isdisjoint(
        np.flatnonzero(np.isin(runs["loss"], held.fit.measured))
    )


def test_holdout_shows_a_law_that_does_not_hold():
    """Progress that stops past 1e18 FLOPs: predictions are too low there."""
    compute = np.geomspace(1e15, 1e19, 20)
    loss = 1.7 + 300 * np.minimum(compute, 1e18) ** -0.15
    held = holdout(fit_compute, {"compute": compute, "loss": loss}, share=0.2)
    assert held.bias > 0.01
    assert held.covered < 0.5


def test_holdout_refuses_what_it_cannot_split():
    runs = {"compute": np.full(9, 1e18), "loss": np.linspace(2, 3, 9)}
    with pytest.raises(ValueError, match="share=20"):
        holdout(fit_compute, runs, share=20)
    with pytest.raises(ValueError, match="equally large"):
        holdout(fit_compute, runs)


def test_checklist_tells_what_speaks_against_a_fit(chinchilla_runs):
    runs = chinchilla_runs(noise=0.003)
    compute = 6 * runs["params"] * runs["tokens"]
    held = holdout(fit_chinchilla, runs, by=compute)
    law = fit_chinchilla(**runs, bootstrap=30)
    items = {i.topic: i for i in checklist(law, held=held, stated={"tuning": "grid"})}
    assert items["intervals"].answer == "30 bootstrap draws of runs, 95 %"
    assert items["tuning"] == ("setup", "tuning", "grid", "")
    assert items["architecture"].concern.startswith("What the models are")
    assert items["extrapolation"].answer.startswith("16 larger runs")
    assert items["alpha"].answer.startswith(f"{law.alpha:.4g} [")
    assert items["lack of fit"].concern == "cannot be tested"
    few = {name: column[:8] for name, column in runs.items()}
    concerns = {i.topic: i.concern for i in checklist(fit_chinchilla(**few))}
    assert concerns["runs and unknowns"] == "fewer than five runs an unknown"
    assert concerns["extrapolation"] == "no hold-out was made"
    with pytest.raises(ValueError, match="stated: weather not on the list"):
        checklist(law, stated={"weather": "fair"})
