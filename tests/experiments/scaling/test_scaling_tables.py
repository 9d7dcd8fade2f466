"""From run tables to fits, hold-outs and the checklist."""

import json

import numpy as np
import pytest

from gnomon.experiments.scaling import (
    checklist,
    fit_chinchilla,
    fit_compute,
    holdout,
    run_table,
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


@pytest.fixture
def sweep(tmp_path):
    """A sweep's folder: twelve finished trials, one diverged, one not done."""
    for trial in range(14):
        folder = tmp_path / "trials" / f"{trial:02d}"
        folder.mkdir(parents=True)
        width, steps = 16 * 2 ** (trial % 4), 100 * 2 ** (trial // 4)
        params = 24.0 * width**2
        optimizer = {"name": "optax.adamw", "learning_rate": 1e-3}
        config = {"label": "AdamW", "seed": 0, "steps": steps, "batch": 16}
        config |= {"optimizer": optimizer, "model": {"width": width}}
        (folder / "config.json").write_text(json.dumps(config))
        if trial == 13:
            continue
        status = "diverged" if trial == 12 else "finished"
        loss = (
            None if trial == 12 else 1 + 20 / params**0.3 + 30 / (1024 * steps) ** 0.4
        )
        result = {"trial": f"{trial:02d}", "status": status, "parameters": params}
        result |= {"final": {"validation_loss": loss}, "units": 1024.0 * steps}
        result |= {"compute": 6 * params * 1024 * steps, "seconds": 1.0}
        (folder / "result.json").write_text(json.dumps(result))
    return tmp_path


def test_a_sweep_becomes_a_table_that_fits_take(sweep):
    table = run_table(sweep)
    assert len(table["loss"]) == 12
    np.testing.assert_array_equal(table["batch"], 1024)
    law = fit_chinchilla(**select(table, "params", "tokens", "loss"))
    np.testing.assert_allclose([law.E, law.alpha, law.beta], [1, 0.3, 0.4], rtol=1e-3)
    with pytest.raises(ValueError, match=r"metric='accuracy'.*validation_loss"):
        run_table(sweep, metric="accuracy")


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
