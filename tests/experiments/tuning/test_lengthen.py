"""The baseline grows until its lengths hold every speedup, and no further."""

import numpy as np
import pytest

from gnomon.experiments.config.trials import make_trial, make_trials
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.runs import load_runs, table
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.tuning import rounds
from gnomon.experiments.tuning.lengthen import lengthened

RATES = (1e-3, 2e-3, 4e-3)


def trials_of(tiny, gain, lengths, **tuning):
    base = tiny(
        **{"report.baseline": "A", **{f"tuning.{k}": v for k, v in tuning.items()}}
    )
    return make_trials(
        base,
        [
            {
                "label": label,
                "optimizer.weight_decay": 0.01 if label == "A" else 0.02,
                "steps": steps,
                "seed": seed,
                "optimizer.learning_rate": rate,
            }
            for label in "AB"
            for steps in (lengths if label == "A" else (100,))
            for rate in RATES
            for seed in range(3)
        ],
    )


def write(workdir, trials, gain):
    """Results of a loss that falls with compute, B's ``gain`` times as fast as A's."""
    for trial in trials:
        folder = workdir / "trials" / trial.id
        if (folder / "result.json").exists():
            continue
        config = trial.config
        speed = gain if trial.label == "B" else 1.0
        rng = np.random.default_rng([config["seed"], config["steps"]])
        loss = 5 - 0.5 * np.log(config["steps"] * speed)
        loss += 0.2 * np.log(config["optimizer"]["learning_rate"] / 2e-3) ** 2
        loss += 0.001 * rng.standard_normal()
        write_json(folder / "config.json", config)
        result = {
            "status": "finished",
            "final": {"validation_loss": loss},
            "parameters": 1000,
            "compute": 1e6 * config["steps"],
            "seconds": 1.0,
        }
        write_json(folder / "result.json", result)


@pytest.mark.parametrize("lengths", [(70, 100, 140), (100,)])
@pytest.mark.parametrize("gain", [0.3, 1.0, 2.9])
def test_rounds_end_when_nothing_is_extrapolated(
    tiny, tmp_path, monkeypatch, gain, lengths
):
    trials = trials_of(tiny, gain, lengths, lengthen=6)

    class Planned:
        """A sweep as far as its rounds look at it."""

        programs = None

        def __init__(self, trials, max_lanes=0, programs=None):
            self.trials, self.max_lanes, self.groups, self.names = trials, 0, {}, {}

    asked = []

    def run(sweep, workdir):
        asked.append(sorted({trial.config["steps"] for trial in sweep.trials}))
        write(workdir, sweep.trials, gain)

    def prepare(sweep, workdir, about, earlier=()):
        ids = [trial.id for trial in [*earlier, *sweep.trials]]
        write_json(workdir / "sweep.json", {"trials": ids})

    monkeypatch.setattr(rounds, "Sweep", Planned)
    monkeypatch.setattr(rounds, "prepare", prepare)
    rounds.run_widening(Planned(trials), tmp_path, {}, run)
    found = analyze(table(load_runs(tmp_path)), "A").comparisons[0]
    assert not found.extrapolated
    assert not found.interval_extrapolated
    assert np.exp(found.log_speedup) == pytest.approx(gain, rel=0.15)
    if gain == 1 and len(lengths) > 1:
        assert len(asked) == 1  # long enough already
    # A rerun asks for the same and finds it done.
    first, listed = list(asked), read_json(tmp_path / "sweep.json")
    asked.clear()
    rounds.run_widening(Planned(trials), tmp_path, {}, run)
    assert asked == first
    assert read_json(tmp_path / "sweep.json") == listed


def test_a_new_length_repeats_the_grid_and_the_seeds_of_the_one_beside_it(
    tiny, tmp_path
):
    trials = trials_of(tiny, 1.6, (70, 100, 140))
    write(tmp_path, trials, 1.6)
    added = lengthened(trials, table(load_runs(tmp_path)), "A", "validation_loss")
    assert {t.config["steps"] for t in added} == {196}
    nearest = [t for t in trials if t.label == "A" and t.config["steps"] == 140]
    again = {make_trial(t.config | {"steps": 140}).id for t in added}
    assert again == {t.id for t in nearest}
