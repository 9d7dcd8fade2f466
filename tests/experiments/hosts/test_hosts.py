"""One trial over several processes: the run of one process, whatever ends it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scenes

from gnomon.experiments import train
from gnomon.experiments.records.files import read_json
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.train import load_state
from gnomon.experiments.trial.arrays import load_arrays

pytestmark = pytest.mark.usefixtures("optax_promotion")
# Sums over four devices round in the order in which what moves them adds, and that is
# not the same within a process and between two: after twelve Adam steps of 0.01 at
# most, weights agree to 1e-5 of the way that they can go.
CLOSE = {"rtol": 0, "atol": 1e-5 * 12 * 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def one(folder, optax_promotion):
    """The run by one process, on as many devices."""
    # One program for the run and its repetition.
    once = {what: getattr(train, what) for what in scenes.COMPILED}
    for what, function in once.items():
        setattr(train, what, scenes.once(function))
    train.train(scenes.config(), folder / "one")
    moved = shutil.copytree(folder / "one", folder / "moved")
    (moved / "result.json").unlink()
    shutil.rmtree(moved / "checkpoints/12")
    yield folder / "one"
    for what, function in once.items():
        setattr(train, what, function)


@pytest.fixture(scope="module")
def played(folder, one, compiled):
    """Every scene by two processes: by its name, what each of them said."""
    words = [sys.executable, scenes.__file__, str(folder)]
    environment = os.environ | compiled | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    here = Path(scenes.__file__).parent
    # In a session of its own, which ends with the test whatever happens.
    with subprocess.Popen(
        words, env=environment, cwd=here, start_new_session=True
    ) as process:
        try:
            assert process.wait(timeout=300) == 0
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    told = []
    for index in range(2):
        out = (folder / f"two-{index}.out").read_text()
        lines = [json.loads(line) for line in out.splitlines() if line[:1] == "{"]
        assert len(lines) == 9, (folder / f"two-{index}.err").read_text()
        told.append(
            {line.pop("scene") + line.get("ended", "")[:6]: line for line in lines}
        )
    return told


def ends(folder, name):
    """How processes ended, and their last line."""
    codes = json.loads((folder / f"{name}.json").read_text())
    errors = [folder / f"{name}-{index}.err" for index in range(len(codes))]
    return codes, [(path.read_text().splitlines() or [""])[-1] for path in errors]


def leaves(workdir):
    return jax.tree_util.tree_leaves_with_path(load_arrays(workdir))


def assert_same(workdir, other, exact=True):
    """The same arrays, and rows written once, of two folders."""
    pairs = list(zip(leaves(workdir), leaves(other), strict=True))
    for (path, a), (_, b) in pairs:
        if exact:
            np.testing.assert_array_equal(a, b, err_msg=str(path))
        elif "params" in str(path):
            np.testing.assert_allclose(a, b, **CLOSE, err_msg=str(path))
    rows, others = read_metrics(workdir), read_metrics(other)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    if exact:
        assert rows == others
    for row, wanted in zip(rows, others, strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)


def test_two_processes_train_as_one_does(played, folder, one):
    assert_same(folder / "whole", one, exact=False)
    state = load_state(folder / "whole")
    assert (state.step, state.params["head"]["kernel"].shape) == (12, (16, 3))
    results = [read_json(path / "result.json") for path in (folder / "whole", one)]
    for result in results:
        assert result.pop("seconds") > 0
    finals = [result.pop("final") for result in results]
    assert finals[0] == pytest.approx(finals[1], rel=1e-5)
    assert results[0] == results[1]
    # Each gathers the half of a batch that its devices need; one writes and speaks.
    for index, scene in enumerate(played):
        assert scene["whole"]["asked"] == [4]
        out = (folder / f"two-{index}.out").read_text()
        assert ("total" in out) == (index == 0)


def test_what_is_refused_ends_all_with_one_line(played):
    for scene in played:
        assert scene["refusedAgreed"]["ended"] == (
            "Agreed: config.mesh: data=2 times model=1 needs 2 devices, and the 2"
            " processes of this run have 4 (cpu); give a mesh of as many, such as"
            " --config.mesh.data=4"
        )
        assert "process 1 has another config" in scene["anotherAgreed"]["ended"]


def test_killed_or_stopped_at_any_step_it_ends_as_if_nothing_had_been(played, folder):
    assert_same(folder / "again", folder / "whole")
    # SIGTERM in one process stops all at one step.
    steps = {scene["stoppedInterr"]["ended"] for scene in played}
    assert len(steps) == 1
    assert "stopped at step" in steps.pop()
    assert_same(folder / "stopped", folder / "whole")


def test_a_killed_process_ends_the_others_and_any_number_goes_on(played, folder, one):
    codes, lines = ends(folder, "four")
    assert codes[3] == -signal.SIGKILL
    # Each says so; what jax itself ends, without process 0, has no line of ours.
    assert codes[:3] == [2, 2, 2]
    assert all("another process" in line for line in lines[:3])
    assert len(list(folder.glob("lone/checkpoints/4/arrays-*-of-00004.npz"))) == 4
    # By two processes what four had begun, or one; and by one what four had begun.
    for name in ("killed", "moved"):
        assert_same(folder / name, folder / "whole", exact=False)
    train.train(scenes.config(), folder / "lone")
    assert_same(folder / "lone", one, exact=False)


def test_a_fault_of_one_process_ends_the_others_with_its_words(played, folder):
    codes, lines = ends(folder, "two")
    assert codes == [2, 2]
    assert all("ZeroDivisionError: a fault of one process" in line for line in lines)
    assert "process 1: " in lines[0]
    assert not (folder / "failing/result.json").exists()


def test_probes_are_of_the_whole_batch(played, folder, one):
    rows = read_metrics(folder / "probed")
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 10, 12]
    for row in read_metrics(one):
        (probed,) = (other for other in rows if other["step"] == row["step"])
        assert probed["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
    assert any("spectral_norm" in name for name in rows[1])
