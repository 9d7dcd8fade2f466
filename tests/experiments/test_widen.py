"""Grids grow until their best learning rate lies inside, and no further."""

import pytest

from gnomon.experiments.files import read_json
from gnomon.experiments.runs import Run, table
from gnomon.experiments.sweep import Sweep, run_widening
from gnomon.experiments.sweeps import over, product
from gnomon.experiments.trials import make_trials
from gnomon.experiments.widen import widened

RATE = "optimizer.learning_rate"


def study(tiny, losses, tmp_path, seeds=(0, 1), **overrides):
    """Trials whose final loss is ``losses[rate]``; None diverged. With their table."""
    trials = make_trials(
        tiny(**overrides), product(over(RATE, losses), over("seed", seeds))
    )
    runs = []
    for trial in trials:
        loss = losses[trial.config["optimizer"]["learning_rate"]]
        result = {
            "status": "diverged" if loss is None else "finished",
            "final": {"validation_loss": loss},
        }
        seed = trial.config["seed"]
        runs.append(Run(trial.id, "A", seed, trial.config, result, tmp_path))
    return trials, table(runs)


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        ({0.01: 3.0, 0.02: 2.0, 0.05: 1.0}, 0.125),  # the grid's ratio at that end
        ({0.01: 1.0, 0.02: 2.0, 0.05: 3.0}, 0.005),
        ({0.01: None, 0.02: None}, 0.005),
        ({0.01: 1.0, 0.02: None}, 0.005),
    ],
)
def test_a_best_rate_at_an_end_asks_for_one_beyond_it(tiny, tmp_path, losses, rate):
    trials, done = study(tiny, losses, tmp_path)
    added = widened(trials, done, "validation_loss")
    assert [t.config["optimizer"]["learning_rate"] for t in added] == [rate, rate]
    assert [t.config["seed"] for t in added] == [0, 1]
    # Nothing else of the trial changes.
    one = added[0].config | {"optimizer": trials[0].config["optimizer"]}
    assert one == trials[0].config


@pytest.mark.parametrize(
    "losses",
    [
        {0.01: 2.0, 0.02: 1.0, 0.04: 3.0},
        {0.01: 2.0, 0.02: 1.0, 0.04: None},  # divergence shows that more is worse
        {0.01: 2.0},  # no ratio to go on by
    ],
)
def test_a_grid_that_holds_its_optimum_stays(tiny, tmp_path, losses):
    trials, done = study(tiny, losses, tmp_path)
    assert widened(trials, done, "validation_loss") == []


@pytest.mark.usefixtures("optax_promotion")
def test_a_sweep_widens_round_by_round_and_a_rerun_adds_nothing(tiny, tmp_path, capsys):
    """Rates far too small: each round adds one, up to the limit of two."""
    base = tiny(
        steps=2,
        tuning__widen=2,
        optimizer={"name": "optax.sgd"} | {"learning_rate": 1e-5},
    )
    trials = make_trials(base, over(RATE, [1e-5, 1e-3]))
    run_widening(Sweep(trials), tmp_path, {})
    assert capsys.readouterr().out.count("adds") == 2
    listed = read_json(tmp_path / "sweep.json")["trials"]
    rates = [
        read_json(tmp_path / "trials" / i / "config.json")["optimizer"]["learning_rate"]
        for i in listed
    ]
    assert rates == [1e-5, 1e-3, 0.1, 10.0]
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("trials/*/*.json")}
    run_widening(Sweep(trials), tmp_path, {})
    assert read_json(tmp_path / "sweep.json")["trials"] == listed
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
