"""Trials an hour: one compiled program for all, against the two usual ways.

    python benchmarks/sweep_throughput.py [--trials=15] [--steps=240] [--width=32]

The same trials of the byte language model, each way in fresh processes and a fresh
folder, one way after another, repeated in turn:

* ``sweep``: ``gnomon.experiments.sweep``, the trials as lanes of one program.
* ``sweep, vmap``: the same with lanes side by side instead of one after another.
* ``process``: ``gnomon.experiments.train`` once a trial, one process at a time. All
  but the first find the compiled program in the persistent cache.
* ``processes``: the same, as many processes at once as there are cores.
* ``recompile``: one process that builds and compiles every trial's program anew.

Times are wall-clock, imports and compilation included, for that is what a person
waits for. The final validation losses of all ways are compared in the same run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "sweep_throughput.json"
CONFIG = """
from gnomon.experiments.configs import lm
from gnomon.experiments.config.grid import logspace, over, product

def get_config():
    config = lm.get_config("width={width},steps={steps}")
    config.tensorboard = False
    config.evaluate = dict(every=0, batches=2, batch=64)
    config.checkpoint_every = {steps}
    return config

def sweep():
    return product(
        over("optimizer.learning_rate", logspace(1e-3, 1e-2, {rates})),
        over("seed", list(range({seeds}))),
    )
"""
RECOMPILE = """
import sys, time, jax
from pathlib import Path
from gnomon.experiments.config import load
from gnomon.experiments.records.files import write_json
from gnomon.experiments.sweep import trials_of
from gnomon.experiments.train import train
path, out = sys.argv[1:]
for trial in trials_of(load(path), path):
    jax.clear_caches()
    train(trial.config, Path(out, "trials", trial.id))
"""
VMAP = """
import sys
from gnomon.experiments import sweep
from gnomon.experiments.fleet import plan, preparation
compile_lanes = plan.compile_lanes
for module in (preparation, plan):
    module.compile_lanes = lambda trials, data: compile_lanes(trials, data, "vmap")
sweep.run()
"""


def call(arguments: list[str], cache: str | None) -> None:
    environment = os.environ | ({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {})
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr[-2000:]}")


def losses(folder: Path) -> dict[str, float]:
    found = {}
    for path in folder.glob("trials/*/result.json"):
        result = json.loads(path.read_text())
        found[result["trial"]] = result["final"]["validation_loss"]
    return found


def ways(config: Path) -> dict:
    """Each way as a function of a fresh folder."""
    from gnomon.experiments.config import load
    from gnomon.experiments.sweep import trials_of

    trials = trials_of(load(str(config)), str(config))

    def one(trial, folder):
        call(
            [
                *("-m", "gnomon.experiments.train", f"--config={config}"),
                f"--config.seed={trial.config['seed']}",
                "--config.optimizer.learning_rate="
                f"{trial.config['optimizer']['learning_rate']}",
                f"--workdir={folder / 'trials' / trial.id}",
            ],
            str(folder / "xla"),
        )

    def at_once(count):
        def run(folder):
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(lambda trial: one(trial, folder), trials))

        return run

    def sweep(*start):
        return lambda folder: call(
            [*start, f"--config={config}", f"--workdir={folder}"], str(folder / "xla")
        )

    return {
        "sweep": sweep("-m", "gnomon.experiments.sweep"),
        "sweep, vmap": sweep("-c", VMAP),
        "process": at_once(1),
        "processes": at_once(len(os.sched_getaffinity(0))),
        "recompile": lambda folder: call(
            ["-c", RECOMPILE, str(config), str(folder)], None
        ),
    }


def main() -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    settings = {
        name: getattr(arguments, name) for name in ("rates", "seeds", "steps", "width")
    }
    trials = arguments.rates * arguments.seeds
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch, "throughput.py")
        config.write_text(CONFIG.format(**settings))
        runs = ways(config)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        reference: dict[str, float] = {}
        for repeat in range(arguments.repeats):
            for name, run in runs.items():
                folder = Path(scratch, f"{repeat}-{name.replace(', ', '-')}")
                begin = time.perf_counter()
                run(folder)
                seconds[name].append(time.perf_counter() - begin)
                found = losses(folder)
                assert len(found) == trials, f"{name} finished {len(found)} trials"
                reference = reference or found
                worst = max(abs(found[t] - reference[t]) for t in found)
                assert worst < 5e-3, f"{name} differs from sweep by {worst} nats"
                print(f"{name}: {seconds[name][-1]:.1f} s", file=sys.stderr)
    from gnomon.experiments.console.table import table
    from gnomon.experiments.records.software import versions

    median = {name: statistics.median(times) for name, times in seconds.items()}
    rows = [("way", "seconds", "trials/hour", "sweep is")]
    for name, time_ in median.items():
        ratio = statistics.median(
            t / s for t, s in zip(seconds[name], seconds["sweep"], strict=True)
        )
        rows.append(
            (name, f"{time_:.1f}", f"{3600 * trials / time_:.0f}", f"{ratio:.2f}x")
        )
    print(table(rows, words=1))
    record = {
        "command": f"python benchmarks/{Path(__file__).name} "
        + " ".join(f"--{k}={v}" for k, v in settings.items()),
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
        "trials": trials,
        **settings,
        "seconds": seconds,
        "trials_per_hour": {n: 3600 * trials / t for n, t in median.items()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
