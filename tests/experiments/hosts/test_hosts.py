"""One trial over several processes: the run of one process, whatever ends it."""

import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import scenes

from gnomon.experiments.records.files import read_json
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.train import load_state, train
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
def killed(folder, start, free_port):
    """What four processes leave, and say, when one of them is killed at step 10."""
    words = [
        *("-m", "gnomon.experiments.train", "--config=scenes.py"),
        *(f"--workdir={folder / 'killed'}", "--distributed", "--num_processes=4"),
        f"--coordinator_address=localhost:{free_port()}",
    ]
    stall = {scenes.STALL: str(folder)}
    processes = [
        start([*words, f"--process_id={index}"], 1, **stall) for index in range(4)
    ]
    while len(list(folder.glob("stalled-*"))) < 4:
        ended = [process for process in processes if process.poll() is not None]
        assert not ended, ended[0].communicate()
        time.sleep(0.02)
    processes[3].kill()
    (folder / "go").touch()
    said = [process.communicate(timeout=60) for process in processes]
    lone = shutil.copytree(folder / "killed", folder / "lone")
    assert len(list(lone.glob("checkpoints/4/*.npz"))) == 4
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def one(folder, optax_promotion):
    """The same run by one process, on as many devices."""
    train(scenes.config(), folder / "one")
    moved = shutil.copytree(folder / "one", folder / "moved")
    (moved / "result.json").unlink()
    shutil.rmtree(moved / "checkpoints/12")
    return folder / "one"


@pytest.fixture(scope="module")
def played(folder, killed, one, start, free_port):
    """Every scene by two processes: by its name, what each of them said."""
    words = [scenes.__file__, folder, free_port(), 2]
    processes = [start([*words, index], 2) for index in range(2)]
    said = [process.communicate(timeout=240) for process in processes]
    told = []
    for out, err in said:
        lines = [json.loads(line) for line in out.splitlines() if line[:1] == "{"]
        assert len(lines) == 9, err
        told.append(
            {line.pop("scene") + line.get("ended", "")[:6]: line for line in lines}
        )
    ended = [(p.returncode, err) for p, (_, err) in zip(processes, said, strict=True)]
    return told, ended, [out for out, _ in said]


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
    told, _, said = played
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
    for index, scene in enumerate(told):
        assert scene["whole"]["asked"] == [4]
        assert ("total" in said[index]) == (index == 0)


def test_what_is_refused_ends_all_with_one_line(played):
    told, _, _ = played
    for scene in told:
        assert scene["refusedAgreed"]["ended"] == (
            "Agreed: config.mesh: data=2 times model=1 needs 2 devices, and the 2"
            " processes of this run have 4 (cpu); give a mesh of as many, such as"
            " --config.mesh.data=4"
        )
        assert "process 1 has another config" in scene["anotherAgreed"]["ended"]


def test_killed_or_stopped_at_any_step_it_ends_as_if_nothing_had_been(played, folder):
    told, _, _ = played
    assert_same(folder / "again", folder / "whole")
    # SIGTERM in one process stops all at one step.
    steps = {scene["stoppedInterr"]["ended"] for scene in told}
    assert len(steps) == 1
    assert "stopped at step" in steps.pop()
    assert_same(folder / "stopped", folder / "whole")


def test_a_killed_process_ends_the_others_and_any_number_goes_on(
    killed, played, folder, one
):
    codes, said = killed
    assert codes[3] == -signal.SIGKILL
    assert not any(code == 0 for code in codes)
    for code, (_, err) in zip(codes, said, strict=True):
        if code == 2:
            assert "another process" in err
    # By two processes what four had begun, or one; and by one what four had begun.
    for name in ("killed", "moved"):
        assert_same(folder / name, folder / "whole", exact=False)
    lone = folder / "lone"
    train(scenes.config(), lone)
    assert_same(lone, one)


def test_a_fault_of_one_process_ends_the_others_with_its_words(played, folder):
    _, ended, _ = played
    assert [code for code, _ in ended] == [2, 2]
    for _, err in ended:
        assert "ZeroDivisionError: a fault of one process" in err.splitlines()[-1]
    assert not (folder / "failing/result.json").exists()


def test_probes_are_of_the_whole_batch(played, folder, one):
    rows = read_metrics(folder / "probed")
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 10, 12]
    for row in read_metrics(one):
        (probed,) = (other for other in rows if other["step"] == row["step"])
        assert probed["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
    assert any("spectral_norm" in name for name in rows[1])
