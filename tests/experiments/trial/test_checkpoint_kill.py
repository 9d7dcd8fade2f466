"""`kill -9`, at any moment, costs nothing that a save had finished."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gnomon.experiments.trial.checkpoint import Checkpoints

# What a killed process does: trees that are a function of the step, saved without
# pause, and a line for each one that is known to be on disk.
LOOP = """
import os, signal, sys
import numpy as np
from gnomon.experiments.trial.checkpoint import Checkpoints

folder, in_save = sys.argv[1], sys.argv[2] == "in_save"

def tree(step):
    rng = np.random.default_rng(step)
    return {"w": rng.standard_normal((40, 1000)), "b": rng.integers(0, 9, 50)}

def kill_in_save(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)

checkpoints = Checkpoints(folder)
restored = checkpoints.restore(tree(0))
first = 0 if restored is None else restored[0]
for step in range(first + 1, first + 10_000):
    if step == first + 3:
        checkpoints.wait()
        # The first save removed what a killed process had begun.
        assert all(name.isdecimal() for name in os.listdir(folder)), os.listdir(folder)
    if in_save and step == first + 3:
        os.fsync = kill_in_save  # which a save first calls when it has begun
    checkpoints.save(step, tree(step), {"step": step})
    if step % 2:
        checkpoints.wait()
        print(step, flush=True)
"""


def _killed_tree(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {"w": rng.standard_normal((40, 1000)), "b": rng.integers(0, 9, 50)}


def _start(folder: Path, mode: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(folder), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _restored_step(folder: Path) -> int:
    """Restores, checks every bit against the step's tree, and returns the step."""
    before = sorted(folder.rglob("*"))
    with Checkpoints(folder) as checkpoints:
        step, tree, meta = checkpoints.restore(_killed_tree(0))
        # A kill damages nothing: what it broke off was never a checkpoint.
        assert checkpoints.notes == []
    assert sorted(folder.rglob("*")) == before, "a reader changes nothing"
    assert meta == {"step": step}
    for name, leaf in _killed_tree(step).items():
        np.testing.assert_array_equal(tree[name], leaf)
    return step


def test_kill_9_at_random_moments_loses_nothing_that_was_saved(tmp_path):
    chance = random.Random(0)
    last = 0
    for _ in range(4):
        with _start(tmp_path, "random") as child:
            acknowledged = int(child.stdout.readline())
            time.sleep(chance.uniform(0.0, 0.4))
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.read().split("\n")[:-1]
            assert child.wait() == -signal.SIGKILL, child.stderr.read()
        acknowledged = max([acknowledged, *map(int, lines)])
        step = _restored_step(tmp_path)
        assert step >= acknowledged > last
        last = step


def test_kill_9_inside_a_save_leaves_the_one_before(tmp_path):
    with _start(tmp_path, "in_save") as child:
        assert child.wait() == -signal.SIGKILL, child.stderr.read()
    # The broken save is there, and is not taken for a checkpoint.
    assert not all(entry.name.isdecimal() for entry in tmp_path.iterdir())
    assert _restored_step(tmp_path) == 2
