"""The Slurm engine: jobs on this machine, and what Slurm itself is told."""

import os
import re
import signal
import sys
import threading
import time

import pytest
import submitit
from absl import flags

from gnomon.experiments.config.grid import over
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.fleet import engines, on_slurm, remote
from gnomon.experiments.records.files import read_json
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.sweep import Sweep, prepare, run_sweep

pytestmark = pytest.mark.usefixtures("optax_promotion")
STEPS = 3000


@pytest.fixture
def sweep(tiny):
    config = tiny(
        task="gnomon.experiments.tasks.classification",
        model={"name": "gnomon.models.MLP", "inputs": 13, "widths": [4], "classes": 3},
        data={"name": "wine"},
        steps=STEPS,
        log_every=100,
        evaluate={"every": 0, "batches": 1, "batch": 8},
        checkpoint_every=50,
    )
    return Sweep(make_trials(config, over("seed", [0, 1])), max_lanes=2)


def owner(folder, but=0):
    """The process that has saved a step of the only chunk, once it is another."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        for path in folder.glob("chunks/*/checkpoints/[1-9]*"):
            found = re.match(r"process (\d+)", (path.parents[1] / "lock").read_text())
            if found and int(found[1]) not in (but, os.getpid()):
                return int(found[1])
        time.sleep(0.002)
    raise AssertionError("nobody saved a step")


def test_a_preempted_and_a_killed_job_go_on_and_each_trial_runs_once(
    sweep, tmp_path, monkeypatch, compiled
):
    for name, value in compiled.items():
        monkeypatch.setenv(name, value)
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        prepare(sweep, folder, {})
    met = []

    def end():
        first = owner(there)
        os.kill(first, signal.SIGUSR2)  # Slurm: out of time, or preempted
        second = owner(there, but=first)
        os.kill(second, signal.SIGKILL)
        met.extend([first, second])

    thread = threading.Thread(target=end)
    thread.start()
    on_slurm.run_sweep(sweep, there, cluster="local")
    thread.join()
    lock = next(there.glob("chunks/*/lock")).read_text()
    last = int(re.match(r"process (\d+)", lock)[1])
    assert len({*met, last, os.getpid()}) == 4, "each went on from the one before"
    logs = [path.read_text() for path in sorted(there.glob("slurm/*/*_log.err"))]
    assert len(logs) == 2, "the preempted job was queued again, the killed one replaced"
    assert sum("Calling checkpoint method" in log for log in logs) == 1
    assert not list(there.glob("chunks/*/checkpoints"))
    run_sweep(sweep, here)
    for trial in sweep.trials:
        folders = [w / "trials" / trial.id for w in (here, there)]
        final, found = (read_json(f / "result.json")["final"] for f in folders)
        assert found == pytest.approx(final, rel=1e-5)
        steps = [row["step"] for row in read_metrics(folders[1])]
        assert steps == sorted(set(steps)), "rows of a trial run twice would repeat"
        assert steps == [row["step"] for row in read_metrics(folders[0])]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm as far as it is asked: what it was told, and the states that it tells."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "states").write_text("")
    scripts = {
        "srun": "exit 1",
        "sbatch": f'cp "$1" {folder}/script; echo Submitted batch job 70',
        "sacct": f"touch {folder}/asked; echo 'JobID|State'; cat {folder}/states",
        "scancel": f'echo "$@" >> {folder}/cancelled',
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(on_slurm, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(on_slurm, "ASK_SECONDS", -1.0)
    submitit.SlurmJob.watcher.clear()
    submitit.SlurmJob.watcher._registered.clear()
    return folder


@pytest.fixture
def flags_of():
    def read(line):
        values = flags.FlagValues()
        engines.define(values)
        values(["sweep", *line.split()])
        return values

    return read


def stop_when_there(folder):
    """Ctrl-C as soon as a folder is there."""

    def stop():
        while not folder.exists():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=stop).start()


def test_flags_reach_sbatch_and_ctrl_c_cancels(sweep, tmp_path, slurm, flags_of):
    cut = Sweep(sweep.trials, max_lanes=1)
    prepare(cut, tmp_path, {})
    (slurm / "states").write_text("70_[0-1]|PENDING|\n")
    run = engines.connect(
        flags_of(
            "--engine=slurm --cpus=4 --gpus=2 --memory=16 --slurm_partition=long"
            " --slurm_minutes=90 --slurm_extra=qos=high --slurm_extra=exclusive"
        )
    )
    stop_when_there(tmp_path / "slurm" / "70_1")
    with pytest.raises(Interrupted):
        run(cut, tmp_path)
    script = (slurm / "script").read_text()
    for line in (
        "--array=0-1%2",
        "--cpus-per-task=4",
        "--exclusive",
        "--gpus-per-node=2",
        "--mem=16GB",
        "--partition=long",
        "--qos=high",
        "--signal=USR2@120",
        "--time=90",
        f"--output={tmp_path}/slurm/%A_%a/%A_%a_0_log.out",
    ):
        assert f"#SBATCH {line}\n" in script
    assert (slurm / "cancelled").read_text().split() == ["70_0", "70_1"]


def test_a_second_command_attaches_to_the_jobs_of_the_first(
    sweep, tmp_path, slurm, capsys
):
    prepare(sweep, tmp_path, {})
    for number in (8, 9):
        folder = tmp_path / "slurm" / str(number)
        folder.mkdir(parents=True)
        (folder / f"{number}_submitted.pkl").touch()
    (slurm / "states").write_text("8|PENDING|\n9|CANCELLED by 7|\n")
    stop_when_there(slurm / "asked")
    with pytest.raises(Interrupted):
        on_slurm.run_sweep(sweep, tmp_path)
    assert "attached to jobs of an earlier command: 8\n" in capsys.readouterr().err
    assert not (slurm / "script").exists(), "one chunk, and one job that waits for it"


def test_jobs_that_keep_dying_end_the_sweep(sweep, tmp_path, slurm):
    prepare(sweep, tmp_path, {})
    (slurm / "states").write_text("70|OUT_OF_MEMORY|\n")
    with pytest.raises(ConfigError, match=r"70 and those before it died; .*_log\.err"):
        on_slurm.run_sweep(sweep, tmp_path, retries=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--slurm_extra==high", "write it as qos=high"),
        ("--gpus=0.5 --slurm_cluster=local", "whole ones"),
        ("", "no srun on this machine"),
    ],
)
def test_what_slurm_cannot_do_is_refused(sweep, tmp_path, flags_of, words, said):
    with pytest.raises(ConfigError, match=said):
        engines.connect(flags_of(f"--engine=slurm {words}"))(sweep, tmp_path)


def test_what_a_job_refuses_is_a_line(sweep, tmp_path, monkeypatch):
    """Devices are the job's: the process that asks may have none of them."""
    monkeypatch.setattr(remote, "configure_jax", lambda cpus: None)
    trials = make_trials(sweep.trials[0].config, over("mesh.model", [16]))
    prepare(Sweep(trials), tmp_path, {})
    said = on_slurm.Work(tmp_path, 0, False, 1)()
    assert "needs 16 devices" in said
    assert "\n" not in said


def test_without_submitit_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'gnomon\[slurm\]'"):
        on_slurm.connect("local")
