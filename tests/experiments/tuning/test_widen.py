"""Grids grow until their best learning rate lies inside, and no further."""

import sys

import pytest

from gnomon.experiments.config.grid import over, product
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.records.files import read_json
from gnomon.experiments.records.runs import Run, flatten, table
from gnomon.experiments.sweep import Sweep, run_widening
from gnomon.experiments.tuning.widen import additions

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
    added = [a.trial for a in additions(trials, done, "validation_loss")]
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
    assert additions(trials, done, "validation_loss") == []


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


OWN = """
import optax

def clipped(learning_rate, clip: float):
    return optax.chain(optax.clip(clip), optax.sgd(learning_rate))

def counted(learning_rate, period=2):
    return optax.chain(optax.sgd(learning_rate), optax.scale(period))

def bounded(learning_rate, share=0.5):
    if not 0.2 <= share <= 1:
        raise ValueError("share in [0.2, 1]")
    return optax.chain(optax.sgd(learning_rate), optax.scale(share))
"""


@pytest.mark.parametrize("best", [0, -1])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("name", "values", "beyond"),
    [
        ("clipped.clip", [1, 2, 4], (0.5, 8.0)),  # means a number: whole ones or not
        ("clipped.clip", [1, 2.5, 5], (0.4, 10.0)),
        ("counted.period", [1, 2, 4], (None, 8)),  # half a step is none
        ("counted.period", [2, 4, 8], (1, 16)),
        ("bounded.share", [0.25, 0.5, 1.0], (None, None)),  # its own bounds
        ("bounded.share", [0.5, 1], (0.25, None)),
    ],
)
def test_a_grid_of_whole_or_bounded_numbers_is_widened_to_what_its_field_takes(
    tiny, tmp_path, monkeypatch, name, values, beyond, best, nested
):
    (tmp_path / "own_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)
    function, _, field = name.partition(".")
    inner = {"name": f"own_methods.{function}", "learning_rate": 0.1}
    outer = {"name": "optax.apply_if_finite", "max_consecutive_errors": 3}
    path = "optimizer.inner" if nested else "optimizer"
    config = tiny(optimizer=outer | {"inner": inner} if nested else inner)
    config["tuning"]["field"] = f"inner.{field}" if nested else field
    base = config | {"tuning": config["tuning"] | {"field": ""}}
    trials = make_trials(base, over(f"{path}.{field}", values))
    runs = [
        Run(
            trial.id,
            "A",
            0,
            trial.config | {"tuning": config["tuning"]},
            {"status": "finished", "final": {"loss": abs(i - best % len(values))}},
            tmp_path,
        )
        for i, trial in enumerate(trials)
    ]
    added = [a.trial for a in additions(trials, table(runs), "loss")]
    found = [flatten(trial.config)[f"{path}.{field}"] for trial in added]
    wanted = [beyond[best]] if beyond[best] is not None else []
    assert repr(found) == repr(wanted)
