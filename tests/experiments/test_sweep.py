"""Sweeps: each trial once, whoever runs it and whoever dies."""

import itertools
import re
import time

import numpy as np
import pytest

from gnomon.experiments import report
from gnomon.experiments.config import load
from gnomon.experiments.config.grid import over, product
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.fleet.chunks import claim, is_done
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.sweep import (
    Sweep,
    dry_run,
    prepare,
    run,
    run_sweep,
    trials_of,
)

pytestmark = pytest.mark.usefixtures("optax_promotion")
GRID = (
    "product(over('model.width', [8, 16]),"
    " over('optimizer.learning_rate', [1e-3, 1e-2]), over('seed', [0, 1]))"
)


def grid(tiny, rates=(1e-3, 1e-2)):
    return make_trials(
        tiny(), product(over("optimizer.learning_rate", rates), over("seed", [0, 1]))
    )


def results(workdir):
    return {
        path.parent.name: read_json(path)
        for path in workdir.glob("trials/*/result.json")
    }


def test_a_sweep_has_all_that_it_reports_with_before_its_first_trial(
    workplace, monkeypatch, capsys
):
    """The package on disk may be another by the time that its trials are done."""

    def loads():
        raise ConfigError("loaded")

    monkeypatch.setattr(report, "load", loads)
    with pytest.raises(SystemExit):
        run(["sweep", "--config=small.py", "--workdir=w"])
    assert "error: loaded" in capsys.readouterr().err
    assert not (workplace / "w").exists()


def test_a_sweep_runs_skips_and_grows(tiny, tmp_path):
    small = Sweep(grid(tiny))
    prepare(small, tmp_path, {})
    run_sweep(small, tmp_path)
    first = results(tmp_path)
    assert set(first) == {trial.id for trial in small.trials}
    # A wider grid runs what is new and touches nothing that is done.
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("trials/*/*")}
    wide = Sweep(grid(tiny, (1e-3, 1e-2, 1e-1)))
    prepare(wide, tmp_path, {})
    run_sweep(wide, tmp_path)
    assert len(results(tmp_path)) == 6
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}


def test_a_diverged_trial_is_recorded_and_the_others_finish(tiny, tmp_path):
    sweep = Sweep(grid(tiny, (1e-3, 1e30)))
    prepare(sweep, tmp_path, {})
    run_sweep(sweep, tmp_path)
    for trial in sweep.trials:
        result = results(tmp_path)[trial.id]
        bad = trial.config["optimizer"]["learning_rate"] > 1
        assert result["status"] == ("diverged" if bad else "finished")
        assert (result["diverged_at"] is not None) == bad
        assert np.isfinite(result["final"]["validation_loss"]) != bad


def test_forced_lanes_give_the_same_trials(tiny, tmp_path):
    """One lane at a time: the same results to the rounding of another program."""
    changes = [{"seed": i, "optimizer.learning_rate": 10.0 ** (i - 3)} for i in (0, 1)]
    for name, lanes in (("all", 0), ("one", 1)):
        sweep = Sweep(make_trials(tiny(), changes), max_lanes=lanes)
        prepare(sweep, tmp_path / name, {})
        run_sweep(sweep, tmp_path / name)
    together, alone = results(tmp_path / "all"), results(tmp_path / "one")
    assert len(list((tmp_path / "one/chunks").iterdir())) == 2
    assert len(list((tmp_path / "all/chunks").iterdir())) == 1
    for trial, result in together.items():
        loss = alone[trial]["final"]["validation_loss"]
        assert result["final"]["validation_loss"] == pytest.approx(loss, rel=1e-5)


def test_a_sweep_resumes_with_another_number_of_devices(command, sweep_file, tmp_path):
    """Three lanes: two devices need a ghost lane, eight do not; neither is saved."""
    config = sweep_file(
        "over('optimizer.learning_rate', [1e-3, 3e-3, 1e-2])",
        steps=200,
        checkpoint_every=20,
    )
    workdir = tmp_path / "moved"
    process = command("sweep", f"--config={config}", f"--workdir={workdir}")
    while not any(workdir.glob("chunks/*/checkpoints/20")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    base = load(str(config))
    sweep = Sweep(trials_of(base, str(config)))
    run_sweep(sweep, workdir)
    assert {r["status"] for r in results(workdir).values()} == {"finished"}
    assert len(results(workdir)) == 3
    (chunk,) = workdir.glob("chunks/*")
    assert len(read_json(chunk / "chunk.json")["trials"]) == 3
    for folder in workdir.glob("trials/*"):
        assert read_metrics(folder)[0]["step"] == 3, "the rows before the kill stay"


def test_two_processes_and_a_death_run_each_trial_once(command, sweep_file, tmp_path):
    config = sweep_file(GRID, steps=120, checkpoint_every=20, log_every=4)
    workdir = tmp_path / "shared"
    arguments = (f"--config={config}", f"--workdir={workdir}")
    first, second, third = (command("sweep", *arguments) for _ in range(3))
    # The third dies as soon as trials are under way; its chunk, if it had one, is
    # taken over where it stood.
    while not any(workdir.glob("trials/*/metrics.jsonl")):
        assert first.poll() is None
        time.sleep(0.01)
    third.kill()
    outputs = [first.communicate()[0], second.communicate()[0]]
    assert first.returncode == 0, outputs[0]
    assert second.returncode == 0, outputs[1]
    assert len(results(workdir)) == 8
    ran = [
        name for text in outputs for name in re.findall(r"^\S+ width=\d+", text, re.M)
    ]
    assert sorted(set(ran)) == sorted(ran), "a group was run by two processes"
    for folder in workdir.glob("trials/*"):
        steps = [row["step"] for row in read_metrics(folder)]
        assert steps[-1] == 120
        assert steps == sorted(set(steps)), "rows of a trial run twice would repeat"
    chunks = [read_json(p)["trials"] for p in workdir.glob("chunks/*/chunk.json")]
    assert sorted(itertools.chain(*chunks)) == sorted(results(workdir))
    assert not list(workdir.glob("chunks/*/checkpoints"))


def test_claims_are_exclusive_and_an_abandoned_one_is_resumed(tiny, tmp_path):
    trials = make_trials(tiny(), over("optimizer.learning_rate", [1e-3, 1e-2, 1e-1]))
    first = claim(tmp_path, trials, lambda group: 2)
    second = claim(tmp_path, trials, lambda group: 2)
    third = claim(tmp_path, trials, lambda group: 2)
    assert [t.id for t in first.claim.trials] == [t.id for t in trials[:2]]
    assert [t.id for t in second.claim.trials] == [trials[2].id]
    assert (third.claim, third.busy) == (None, 3)
    first.claim.lock.release()  # what the kernel does when the process dies
    again = claim(tmp_path, trials, lambda group: 1)
    assert [t.id for t in again.claim.trials] == [t.id for t in first.claim.trials]
    assert again.claim.folder == first.claim.folder


def test_a_dry_run_prints_the_plan_and_writes_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = dry_run(Sweep(grid(tiny)), peak=1e12)
    line = next(text for text in table.splitlines() if text.startswith("adamw"))
    assert re.search(r"adamw +4 +4 +[\d,]+ +\d\.\d\de\+\d\d +\d+ MiB +\d+s", line)
    needs = r"adamw +8\.0 B +\d+ MiB +\d+ MiB( +\d\.\de\+\d\d){3} +\d+\.\d%"
    assert re.search(needs, table.splitlines()[-1])
    assert not list(tmp_path.iterdir())


def test_a_bad_override_fails_before_anything_runs(command, sweep_file, tmp_path):
    config = sweep_file("[{}, {'optimizer.learning_rat': 1.0}]")
    process = command("sweep", f"--config={config}", f"--workdir={tmp_path / 'w'}")
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "trial 1" in output
    assert "did you mean 'learning_rate'" in output
    assert not (tmp_path / "w").exists()


def test_a_trial_that_cannot_run_is_named_before_anything_runs(tiny):
    trials = make_trials(tiny(), over("batch", [4, 10**6]))
    with pytest.raises(ConfigError, match=rf"trial {trials[1].id}: config.batch="):
        Sweep(trials)


def test_other_data_in_the_folder_is_refused(tiny, tmp_path):
    sweep = Sweep(grid(tiny))
    prepare(sweep, tmp_path, {})
    about = read_json(tmp_path / "sweep.json")
    write_json(tmp_path / "sweep.json", about | {"data": {"stdlib_text": "f" * 64}})
    with pytest.raises(ConfigError, match="made with other data"):
        prepare(sweep, tmp_path, {})
    assert not any(is_done(tmp_path, trial) for trial in sweep.trials)


def test_a_config_without_a_sweep_says_what_to_do(tiny):
    from gnomon.experiments.config.source import packaged

    with pytest.raises(ConfigError, match=r"has no sweep\(\): add one"):
        trials_of(tiny(), packaged("lm.py"))
