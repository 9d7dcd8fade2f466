"""Runs a config's grid: ``python -m gnomon.experiments.sweep --config= --workdir=``.

The config file's ``sweep()`` yields override mappings; each is a trial. Trials that
can share a compiled program run side by side in it. With ``config.tuning.widen`` the
grids then grow until the best learning rate of each lies inside, and with
``config.tuning.lengthen`` the baseline until its lengths hold every speedup. A rerun
skips what is done and goes on with the rest; several processes may work on one folder.
With ``--engine=ray`` they are tasks of a Ray cluster (`gnomon.experiments.on_ray`).
"""

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from absl import flags
from ml_collections import config_flags

from gnomon.experiments import engine, report
from gnomon.experiments.chunks import claim, finish, is_done, trial_folder
from gnomon.experiments.cli import launch
from gnomon.experiments.config import load_module, plain
from gnomon.experiments.data import Dataset, load
from gnomon.experiments.files import read_json, write_json
from gnomon.experiments.group import Lanes, compile_lanes, flops_per_step, trace
from gnomon.experiments.interrupt import Interruption
from gnomon.experiments.lengthen import lengthened
from gnomon.experiments.mesh import device_mesh
from gnomon.experiments.plan import fit_lanes, group_names, plan_group, plan_table
from gnomon.experiments.progress import Progress
from gnomon.experiments.resolve import ConfigError
from gnomon.experiments.runs import load_runs, table
from gnomon.experiments.trials import (
    Trial,
    digest,
    group_key,
    groups,
    make_trials,
    split,
)
from gnomon.experiments.widen import widened

POLL_SECONDS = 2.0


class Sweep:
    """A checked sweep: its trials, their data, and their compiled programs.

    Building one traces every group's program on shapes, so a trial that cannot run
    is refused before any other has started.
    """

    def __init__(self, trials: Sequence[Trial], max_lanes: int = 0) -> None:
        # The longest first: processes that share a sweep then end together, and the
        # time left is over- and not underestimated.
        self.trials = sorted(
            trials,
            key=lambda t: -t.config["steps"] * flops_per_step(t.config, self.data(t)),
        )
        self.groups = groups(self.trials)
        self.names = group_names(self.groups)
        self.max_lanes = max_lanes
        self._compiled: dict[str, Lanes] = {}
        self._sizes: dict[str, int] = {}
        for group in self.groups.values():
            try:
                trace(group[0].config, self.data(group[0]))
            except ConfigError as error:
                raise ConfigError(f"trial {group[0].id}: {error}") from error

    def check_devices(self) -> None:
        """Refuses a mesh that needs more devices than this process has."""
        for group in self.groups.values():
            device_mesh(group[0].config)

    def data(self, trial: Trial) -> Dataset:
        """The data set of a trial; `load` keeps what it has read."""
        return load(trial.config["data"])

    def lanes(self, trials: Sequence[Trial]) -> Lanes:
        """The compiled program of a chunk, compiled once for chunks of one form."""
        key = self._form(trials)
        if key not in self._compiled:
            self._compiled[key] = compile_lanes(trials, self.data(trials[0]))
        return self._compiled[key]

    def size(self, group: list[Trial]) -> int:
        """How many of a group's trials may run side by side."""
        key = self._form(group)
        if key not in self._sizes:
            size, lanes = fit_lanes(group, self.data(group[0]), self.max_lanes)
            self._sizes[key] = size
            self._compiled[self._form(group[:size])] = lanes
        return self._sizes[key]

    @staticmethod
    def _form(trials: Sequence[Trial]) -> str:
        seeds = len({trial.config["seed"] for trial in trials})
        return digest([split(trials[0].config)[0], len(trials), seeds])


def prepare(
    sweep: Sweep, workdir: Path, about: dict[str, Any], earlier: Sequence[Trial] = ()
) -> None:
    """Writes what the folder says of the sweep, after checking it is the same data.

    ``earlier`` are the trials that the sweep's own were added to.
    """
    fingerprints = {
        trial.config["data"]["name"]: sweep.data(trial).fingerprint
        for trial in sweep.trials
    }
    path = workdir / "sweep.json"
    if path.exists():
        for name, old in read_json(path)["data"].items():
            if fingerprints.get(name, old) != old:
                raise ConfigError(
                    f"--workdir={workdir} was made with other data: the fingerprint of"
                    f" {name} was {old[:12]} and is {fingerprints[name][:12]}; results"
                    " would not compare; use another --workdir"
                )
    for trial in sweep.trials:
        folder = trial_folder(workdir, trial.id)
        if not (folder / "result.json").exists():
            write_json(folder / "config.json", trial.config | {"label": trial.label})
    trials = [trial.id for trial in [*earlier, *sweep.trials]]
    write_json(path, about | {"trials": trials, "data": fingerprints})


def run_sweep(
    sweep: Sweep,
    workdir: Path,
    keep_checkpoints: bool = False,
    *,
    wait: bool = True,
    stream: TextIO | None = None,
) -> None:
    """Runs what is left of a sweep; other processes may be doing the same.

    Args:
      sweep: the sweep, after `prepare`.
      workdir: its folder.
      keep_checkpoints: keep each chunk's last checkpoints after its results.
      wait: stay until the trials that other processes run are done, to take over
        those of a process that dies.
      stream: where progress is shown; by default standard error.

    Raises:
      Interrupted: stopped on request, after a checkpoint.
    """
    steps = {trial.id: trial.config["steps"] for trial in sweep.trials}
    with (
        Interruption() as interruption,
        Progress(
            sum(steps.values()),
            start=sum(steps[t.id] for t in sweep.trials if is_done(workdir, t)),
            trials=len(sweep.trials),
            stream=stream,
        ) as progress,
    ):
        while True:
            claimed, busy = claim(workdir, sweep.trials, sweep.size)
            done = [t for t in sweep.trials if is_done(workdir, t)]
            before = sum(steps[trial.id] for trial in done)
            progress.update(before, trials=len(done))
            if claimed is None:
                if not busy or not wait or interruption.requested:
                    break
                # Another process runs them. If it dies, its lock is free and its
                # chunk is claimed here.
                time.sleep(POLL_SECONDS)
                continue

            def watch(tick: engine.Tick, before: int = before) -> None:
                loss = None if tick.losses is None else float(np.nanmin(tick.losses))
                progress.update(before + tick.step * tick.lanes, loss=loss)

            with claimed.lock:
                trial = claimed.trials[0]
                name = sweep.names[group_key(trial)]
                progress.message(f"{name}: {len(claimed.trials)} trials")
                dataset = sweep.data(trial)
                chunk = engine.Chunk(
                    claimed.trials,
                    [trial_folder(workdir, trial.id) for trial in claimed.trials],
                    claimed.checkpoints,
                )
                results = engine.run(
                    chunk,
                    sweep.lanes(claimed.trials),
                    dataset,
                    flops_per_step=flops_per_step(trial.config, dataset),
                    watch=watch,
                    stop=lambda: interruption.requested,
                )
                finish(claimed, workdir, results, keep_checkpoints)


def run_widening(
    sweep: Sweep,
    workdir: Path,
    about: dict[str, Any],
    run: Callable[[Sweep, Path], None] = run_sweep,
) -> None:
    """Runs a sweep, then what `config.tuning` adds to it, by rounds.

    ``widen`` rounds add rates to grids; when every grid is wide enough, ``lengthen``
    rounds add lengths to the baseline, whose grids may then be widened in turn.

    Args:
      sweep: the sweep.
      workdir: its folder.
      about: what ``sweep.json`` says of it besides.
      run: the engine that runs a sweep to its end.
    """
    prepare(sweep, workdir, about)
    run(sweep, workdir)
    trials = list(sweep.trials)
    tuning = [trial.config["tuning"] for trial in trials]
    left = {
        name: max(one.get(name, 0) for one in tuning) for name in ("widen", "lengthen")
    }
    report = trials[0].config["report"]
    interpolate = trials[0].config["tuning"].get("interpolate", False)
    while any(left.values()):
        # In the sweep's order, whose first label is the baseline where none is named.
        found = {run.id: run for run in load_runs(workdir)}
        done = table([found[trial.id] for trial in trials if trial.id in found])
        added: list[Trial] = []
        path: tuple[str, ...] = ()
        if left["widen"] and (added := widened(trials, done, report["metric"])):
            left["widen"] -= 1
            why, path = "best rate at the end of a grid", ("optimizer", "learning_rate")
        elif left["lengthen"] and (
            added := lengthened(
                trials, done, report["baseline"], report["metric"], interpolate
            )
        ):
            left["lengthen"] -= 1
            why, path = "speedup beyond the baseline's lengths", ("steps",)
        if not added:
            break
        grown = Sweep(added, sweep.max_lanes)
        for key, group in grown.groups.items():
            values = {float(_at(trial.config, path)) for trial in group}
            shown = ", ".join(f"{value:g}" for value in sorted(values))
            print(f"{why}: {grown.names[key]} adds {shown}")
        prepare(grown, workdir, about, earlier=trials)
        run(grown, workdir)
        trials += grown.trials


def _at(config: Any, path: Sequence[str]) -> Any:
    """A field of a config."""
    return reduce(lambda part, field: part[field], path, config)


def trials_of(config: dict[str, Any], path: str, arg: str = "") -> list[Trial]:
    """The trials that a config file's ``sweep()`` yields over a base config."""
    module = load_module(path)
    if not hasattr(module, "sweep"):
        raise ConfigError(
            f"--config={path} has no sweep(): add one that yields overrides, or train"
            " the config alone with python -m gnomon.experiments.train"
        )
    takes_arg = bool(inspect.signature(module.sweep).parameters)
    return make_trials(config, module.sweep(arg) if takes_arg else module.sweep())


def dry_run(sweep: Sweep) -> str:
    """The plan of a sweep as a table; compiles and times, and writes nothing."""
    plans = []
    for key, group in sweep.groups.items():
        plans.append(
            plan_group(sweep.names[key], group, sweep.data(group[0]), sweep.max_lanes)
        )
        print(
            f"planned {len(plans)}/{len(sweep.groups)}: {sweep.names[key]}",
            file=sys.stderr,
        )
    return plan_table(plans)


def main() -> None:
    """The command."""
    path, _, arg = config_flags.get_config_filename(flags.FLAGS["config"]).partition(
        ":"
    )
    workdir = Path(flags.FLAGS.workdir)
    distributed = flags.FLAGS.engine == "ray" and not flags.FLAGS.dry_run
    if distributed:
        # Here, because it imports this module, and after it Ray.
        from gnomon.experiments import on_ray

        on_ray.connect()
    trials = trials_of(plain(flags.FLAGS.config), path, arg)
    sweep = Sweep(trials, flags.FLAGS.max_lanes)
    print(f"{len(trials)} trials in {len(sweep.groups)} groups")
    if flags.FLAGS.dry_run:
        print(dry_run(sweep))
        return
    run: Callable = run_sweep
    if distributed:
        run = partial(
            on_ray.run_sweep,
            cpus=flags.FLAGS.ray_cpus,
            gpus=flags.FLAGS.ray_gpus,
            retries=flags.FLAGS.ray_retries,
        )
    else:
        sweep.check_devices()
    run = partial(run, keep_checkpoints=flags.FLAGS.keep_checkpoints)
    run_widening(sweep, workdir, {"config": path, "arg": arg, "command": sys.argv}, run)
    report.main(workdir)


def run() -> None:
    """Entry point of the console script."""
    flags.DEFINE_bool("dry_run", False, "Print the plan and its cost; run nothing.")
    flags.DEFINE_integer("max_lanes", 0, "Most trials side by side; 0: what fits.")
    flags.DEFINE_bool("keep_checkpoints", False, "Keep checkpoints of done trials.")
    flags.DEFINE_enum("engine", "local", ["local", "ray"], "Who runs the trials.")
    flags.DEFINE_float("ray_cpus", 1, "CPUs of a Ray task.", lower_bound=0)
    flags.DEFINE_float("ray_gpus", 0, "GPUs of a Ray task.", lower_bound=0)
    flags.DEFINE_integer("ray_retries", 3, "Deaths that a Ray task may survive.")
    launch(main)


if __name__ == "__main__":
    run()
