"""The Ray engine on a real cluster: ``make test-ray``, which installs Ray.

The default test run leaves this file out where Ray is not installed.
"""

import itertools
import os
import re
import signal
import time

import pytest

from gnomon.experiments.records.files import read_json
from gnomon.experiments.records.metrics import read_metrics

GRID = (
    "product(over('model.width', [8, 16]),"
    " over('optimizer.learning_rate', [1e-3, 1e-2]), over('seed', [0, 1]))"
)


@pytest.fixture
def arguments(sweep_file, tmp_path):
    """Eight trials as four chunks, long enough to be killed in."""
    config = sweep_file(GRID, steps=240, checkpoint_every=20, log_every=4)
    return lambda name: (f"--config={config}", f"--workdir={tmp_path / name}")


def until_saved(process, workdir, step):
    """Waits for a chunk to save a step; returns its folder."""
    while process.poll() is None:
        for path in workdir.glob(f"chunks/*/checkpoints/{step}"):
            return path.parents[1]
        time.sleep(0.05)
    raise AssertionError(process.communicate()[0])


def test_a_killed_worker_loses_nothing_and_each_trial_runs_once(
    command, arguments, tmp_path
):
    remote, here = tmp_path / "remote", tmp_path / "here"
    process = command("sweep", *arguments("remote"), "--engine=ray", "--max_lanes=2")
    chunk = until_saved(process, remote, 40)
    victim = int(re.match(r"process (\d+)", (chunk / "lock").read_text())[1])
    assert victim != process.pid, (
        "the process that was given the command trains nothing"
    )
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert not (chunk / "lock").read_text().startswith(f"process {victim} "), (
        "another worker took the chunk over"
    )
    # Every trial in one chunk, each of its rows written once.
    chunks = [read_json(path)["trials"] for path in remote.glob("chunks/*/chunk.json")]
    assert len(chunks) == 4
    results = {p.parent.name: read_json(p) for p in remote.glob("trials/*/result.json")}
    assert sorted(itertools.chain(*chunks)) == sorted(results)
    assert len(results) == 8
    for folder in remote.glob("trials/*"):
        steps = [row["step"] for row in read_metrics(folder)]
        logged = [s for s in range(1, 241) if s % 4 == 0 or s % 6 == 0]
        assert steps == logged, "rows of a trial run twice would repeat"
    # And the results are those of a sweep without Ray.
    process = command("sweep", *arguments("here"), "--max_lanes=2")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    for path in here.glob("trials/*/result.json"):
        loss = read_json(path)["final"]["validation_loss"]
        found = results[path.parent.name]["final"]["validation_loss"]
        assert found == pytest.approx(loss, rel=1e-5)


def test_ctrl_c_saves_and_the_same_command_goes_on(command, arguments, tmp_path):
    workdir = tmp_path / "stopped"
    process = command("sweep", *arguments("stopped"), "--engine=ray")
    chunk = until_saved(process, workdir, 40)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "run the same command again to go on" in output
    saved = max(int(path.name) for path in chunk.glob("checkpoints/*"))
    for trial in read_json(chunk / "chunk.json")["trials"]:
        rows = read_metrics(workdir / "trials" / trial)
        assert saved - 4 < rows[-1]["step"] <= saved, "it stopped where it saved"
    process = command("sweep", *arguments("stopped"), "--engine=ray")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert len(list(workdir.glob("trials/*/result.json"))) == 8
