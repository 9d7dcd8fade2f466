"""Breaks a run at each change that it makes to the disk, resumes it, and compares.

    python tests/experiments/crash/points.py --runs train-eager,sweep-late --sample 40
    python tests/experiments/crash/points.py                # every point; about 45 min

A run is broken at one event in one mode (`disk`), the same command is given again, and
parameters, rows of metrics, results and files must be, bit for bit, those of a run that
nothing broke. ``--exits`` also breaks a few in processes of their own, which end there
as by ``kill -9``, with the background thread that the other runs do without. Prints a
line for each fault, and JSON with the counts last, after Ctrl-C those so far; the exit
status is 1 for a fault.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import absl.logging
import jax
from disk import Disk, Killed, modes_of
from runs import RUNS

BROKEN = "train-eager,train-late,sweep-eager,sweep-late"


def events_of(run: Any, workdir: Path) -> list[str]:
    """The operations of a run that nothing breaks."""
    with Disk(workdir) as disk:
        run.run(workdir)
    return [operation for operation, _ in disk.log]


def broken(run: Any, folder: Path, at: int, mode: str, chance: random.Random) -> Path:
    """Breaks a run; returns a folder as the next process would find it."""
    workdir, left = folder / "run", folder / "left"
    workdir.mkdir()
    disk = Disk(workdir, at, mode)
    with disk:
        try:
            run.run(workdir)
        except Killed:
            pass
        except Exception:
            # What a failing disk makes of it is for the command to say in a line.
            if mode in ("kill", "torn", "power"):
                raise
    if mode == "power" and disk.fired:
        disk.after_power(left, chance)
    else:
        # A copy: threads of the ghost may still be writing.
        shutil.copytree(workdir, left, ignore_dangling_symlinks=True)
    return left


def exited(name: str, folder: Path, at: int) -> Path:
    """Breaks a run by the end of a process of its own."""
    left = folder / "left"
    left.mkdir()
    code = (
        "import sys; from pathlib import Path; from disk import Disk; from runs import"
        " RUNS; w = Path(sys.argv[2]); run = RUNS[sys.argv[1]]()\n"
        "with Disk(w, int(sys.argv[3]), 'kill', exits=True): run.run(w)"
    )
    command = [sys.executable, "-c", code, name, str(left), str(at)]
    here = os.fspath(Path(__file__).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    if done.returncode not in (0, 137):
        raise RuntimeError(done.stderr)
    return left


def difference(whole: Any, found: Any, where: str = "") -> str:
    """Where two readings first differ; empty when they do not."""
    if isinstance(whole, dict) and isinstance(found, dict):
        for key in whole.keys() | found.keys():
            if text := difference(whole.get(key), found.get(key), f"{where}/{key}"):
                return text
        return ""
    return "" if whole == found else f"{where}: {str(whole)[:90]} != {str(found)[:90]}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default=BROKEN)
    parser.add_argument("--sample", type=int, default=0, help="points a run; 0: all")
    parser.add_argument("--exits", type=int, default=0, help="real deaths a run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 1)
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.disable(logging.CRITICAL)
    chance = random.Random(options.seed)
    faults = 0
    counts: collections.Counter[str] = collections.Counter()
    # What the runs show of their progress is not the question.
    quiet = contextlib.redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory() as scratch, quiet:
        for name in options.runs.split(","):
            run = RUNS[name]()
            first = Path(scratch, name)
            first.mkdir()
            events = events_of(run, first)
            whole = run.read(first)
            points = [
                (at, mode)
                for at, operation in enumerate(events, 1)
                for mode in modes_of(operation)
            ]
            if options.sample:
                points = sorted(chance.sample(points, options.sample))
            deaths = [(at, "exit") for at in range(1, len(events) + 1)]
            points += sorted(chance.sample(deaths, options.exits))
            for at, mode in points:
                folder = Path(scratch, f"{name}-{at}-{mode}")
                folder.mkdir()
                try:
                    if mode == "exit":
                        left = exited(name.split("-")[0] + "-thread", folder, at)
                    else:
                        left = broken(run, folder, at, mode, chance)
                    run.run(left)
                    found = run.read(left)
                    if mode == "eio":  # what the disk did not remove may stay
                        found["litter"] = []
                    fault = difference(whole, found)
                except KeyboardInterrupt:
                    return _summary(faults, counts)
                except Exception as error:
                    trace = traceback.extract_tb(error.__traceback__)[-1]
                    fault = f"{error!r} at {trace.filename}:{trace.lineno}"
                counts[f"{name} {mode}"] += 1
                if fault:
                    faults += 1
                    where = f"{name} event {at} ({events[at - 1]}) {mode}"
                    print(f"{where}: {fault}", flush=True)
                shutil.rmtree(folder, ignore_errors=True)
    return _summary(faults, counts)


def _summary(faults: int, counts: collections.Counter[str]) -> int:
    totals = {kind: 0 for kind in ("train", "sweep")}
    for key, count in counts.items():
        totals[key.split("-")[0]] += count
    print(json.dumps({"faults": faults, **totals, "points": dict(counts)}))
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
