"""Runs by four processes and by two, which one process that has imported all forks.

    python scenes.py FOLDER

First four train by the command; at step 10 one of them is killed. Then two play scenes,
a run or more each; the last one fails in process 1, and must end process 0 too. What a
process prints is in ``four-I.out`` and ``two-I.out``, JSON for each scene, and how each
ended in ``four.json`` and ``two.json``.
"""

import argparse
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import jax

from gnomon.experiments import train
from gnomon.experiments.config import defaults, override, plain
from gnomon.experiments.console.command import guarded
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import Dataset, load
from gnomon.experiments.hosts.crew import Agreed
from gnomon.experiments.hosts.join import joined

CONFIG = {
    "steps": 12,
    "batch": 8,
    "steps_per_dispatch": 2,
    "task": "gnomon.experiments.tasks.classification",
    "model": {
        "name": "gnomon.models.MLP",
        "inputs": 13,
        "widths": [16],
        "classes": 3,
    },
    "data": {"name": "scenes.data"},
    "optimizer": {"name": "optax.adamw", "learning_rate": 1e-2, "weight_decay": 0.01},
    "mesh": {"data": 4, "model": 1, "rules": ["fsdp"]},
    "evaluate": {"every": 6, "batches": 2, "batch": 8},
    "log_every": 3,
    "checkpoint_every": 4,
    "tensorboard": False,
}


STALL = "GNOMON_TEST_STALL"  # names a folder: where to leave a mark, and to wait


class Rows:
    """An array of examples that counts how often it is asked, and for how many."""

    def __init__(self, array):
        self._array, self.asked = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self._array)

    def __getitem__(self, indices):
        self.asked.append(len(indices))
        folder = os.environ.get(STALL)
        if folder and len(self.asked) == 11:
            Path(folder, f"stalled-{os.getpid()}").touch()
            while not Path(folder, "go").exists():
                time.sleep(0.01)
        return self._array[indices]


def data():
    """Wine, asked for by `Rows`."""
    found = load({"name": "wine"})
    train = {name: Rows(array) for name, array in found.train.items()}
    return Dataset(train, *found[1:])


def get_config():
    """The config of every scene, as a file of a person has it."""
    whole = defaults()
    whole.update(CONFIG)
    return whole


def config(**changes):
    """The same as plain values, with changes."""
    return override(plain(get_config()), changes)


COMPILED = ("trace", "compile_lanes", "flops_per_step")


def once(function):
    """The function, called once for a config."""
    kept = {}

    def called(first, *others):
        setting = first if isinstance(first, dict) else first[0].config
        key = json.dumps(setting, sort_keys=True)
        if key not in kept:
            kept[key] = function(first, *others)
        return kept[key]

    return called


def start(folder, name, devices, parts):
    """Forks a process for each part, which calls it with a port; returns their ids."""
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        port = taken.getsockname()[1]
    started = []
    for index, part in enumerate(parts):
        if (child := os.fork()) > 0:
            started.append(child)
            continue
        for kind, stream in (("out", 1), ("err", 2)):
            file = open(folder / f"{name}-{index}.{kind}", "w")  # noqa: SIM115
            os.dup2(file.fileno(), stream)
        jax.config.update("jax_num_cpu_devices", devices)
        part(port)
        sys.exit()
    return started


def end(folder, name, started):
    """Waits for processes, and writes their exit codes."""
    codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in started]
    Path(folder, f"{name}.json").write_text(json.dumps(codes))


def by_command(home, index, port):
    """Trains as the command does; stalls at step 10."""
    os.environ[STALL] = str(home)
    words = ["train", "--config=scenes.py", f"--workdir={home / 'killed'}"]
    words += ["--distributed", f"--coordinator_address=localhost:{port}"]
    train.run([*words, "--num_processes=4", f"--process_id={index}"])


def main() -> None:
    """Plays all of it."""
    home = Path(sys.argv[1])
    four = [functools.partial(by_command, home, index) for index in range(4)]
    started = start(home, "four", 1, four)
    while len(list(home.glob("stalled-*"))) < 4:
        time.sleep(0.02)
    os.kill(started[3], signal.SIGKILL)
    (home / "go").touch()
    end(home, "four", started)
    shutil.copytree(home / "killed", home / "lone")
    two = [functools.partial(play_all, home, index) for index in range(2)]
    end(home, "two", start(home, "two", 2, two))


def play_all(home, index, port):
    """Plays the scenes, as one of two processes."""
    flags = argparse.Namespace(
        distributed=True,
        coordinator_address=f"localhost:{port}",
        num_processes=2,
        process_id=index,
    )

    # One program for all scenes: what a rerun compiles is not the question.
    for what in COMPILED:
        setattr(train, what, once(getattr(train, what)))

    def play(name, then=lambda step: None, **changes):
        @contextlib.contextmanager
        def watched(config, dataset, speaks):
            yield lambda tick: then(tick.step)

        train._watched = watched
        told = {"scene": name, "speaks": jax.process_index() == 0}
        try:
            train.train(config(**changes), home / name)
        except (Agreed, Interrupted) as ended:
            told["ended"] = f"{type(ended).__name__}: {ended}"
        asked = load({"name": "scenes.data"}).train["label"].asked
        told["asked"] = sorted(set(asked))
        print(json.dumps(told), flush=True)

    def snapshot(step):
        # What SIGKILL would leave of all processes at this moment.
        if index == 0 and step == 6:
            shutil.copytree(home / "whole", home / "again")

    def stopped(step):
        if index == 1 and step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    def failing(step):
        if index == 1 and step >= 2:
            raise ZeroDivisionError("a fault of one process")

    def scenes():
        with joined(flags):
            jax.config.update("jax_numpy_dtype_promotion", "standard")
            play("refused", mesh={"data": 2, "model": 1, "rules": []})
            play("another", seed=index)
            play("whole", snapshot)
            play("again")
            play("killed")
            play("moved")
            play("stopped", stopped)
            play("stopped")
            play("probed", dynamics={"cheap_every": 5})
            play("failing", failing)

    guarded(scenes)


if __name__ == "__main__":
    main()
