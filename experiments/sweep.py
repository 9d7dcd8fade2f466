"""Runs a config's grid: ``python -m gnomon.experiments.sweep --config= --workdir=``.

The config file's ``sweep()`` yields override mappings; each is a trial. Trials that
can share a compiled program run side by side in it. With ``config.tuning.widen`` the
grids then grow until the best learning rate of each lies inside, and with
``config.tuning.lengthen`` the baseline until its lengths hold every speedup. A rerun
skips what is done and goes on with the rest; several processes may work on one folder.
With ``--engine=ray`` they are tasks of a Ray cluster (`gnomon.experiments.on_ray`).
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np
from absl import flags

from gnomon.experiments import engine, report
from gnomon.experiments.chunks import claim, finish, is_done, trial_folder
from gnomon.experiments.cli import Given, launch, need
from gnomon.experiments.config import call, load_module
from gnomon.experiments.data import Dataset, load
from gnomon.experiments.done import lost_rows, read_result
from gnomon.experiments.fields import LEFT_OUT, digest
from gnomon.experiments.files import clean, lock, read_object, write_json
from gnomon.experiments.group import Lanes, compile_lanes, flops_per_step, trace
from gnomon.experiments.interrupt import Interrupted, Interruption
from gnomon.experiments.lengthen import lengthened
from gnomon.experiments.mesh import device_mesh
from gnomon.experiments.origin import check_data, fingerprints
from gnomon.experiments.plan import fit_lanes, group_names, plan_group, plan_table
from gnomon.experiments.progress import Progress
from gnomon.experiments.resolve import ConfigError
from gnomon.experiments.runs import load_runs, table
from gnomon.experiments.shown import printable
from gnomon.experiments.trials import (
    Trial,
    group_key,
    groups,
    make_trials,
    split,
)
from gnomon.experiments.widen import Added, additions

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
        # No more than may run, or each trial less in a group would compile anew.
        group = group[: self.max_lanes or None]
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

    Raises:
      ConfigError: other data, or a file of the folder that is damaged.
    """
    trials = [*earlier, *sweep.trials]
    data = fingerprints((t.config["data"], sweep.data(t)) for t in trials)
    path = workdir / "sweep.json"
    with lock(workdir / "lock", blocking=True, waiting=_announce(workdir, _tell)):
        if path.exists():
            old = read_object(path, data=dict)["data"]
            check_data(workdir, old, data)
            data = old | data
        for trial in sweep.trials:
            _describe(trial_folder(workdir, trial.id), trial)
        clean(path)
        ids = [trial.id for trial in trials]
        write_json(path, about | {"trials": ids, "data": data})


def _describe(folder: Path, trial: Trial) -> None:
    """Writes a trial's config; of one that is done, it keeps how that was trained."""
    path = folder / "config.json"
    clean(path)
    config = trial.config | {"label": trial.label}
    result = read_result(folder, trial.id)
    if result is not None:
        if lost := lost_rows(folder, result):
            _tell(lost)
        with contextlib.suppress(FileNotFoundError, ConfigError):
            old = read_object(path, data=dict, model=dict, optimizer=dict, steps=int)
            # What its id tells is the trial's, whatever the file came to hold.
            kept = [key for key in LEFT_OUT if key not in ("report", "tuning")]
            config |= {key: old[key] for key in kept if key in old}
            if config == old:
                return
    write_json(path, config)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _announce(
    workdir: Path,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> Callable[[str], None]:
    """What to do while the folder's lock is held elsewhere: say by whom, once."""
    told: set[str] = set()

    def waiting(owner: str) -> None:
        if stop():
            raise Interrupted(f"stopped while waiting for {owner}")
        if owner not in told:
            told.add(owner)
            say(f"waiting for {workdir / 'lock'}, which is held by {owner}")

    return waiting


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
        announce = _announce(workdir, progress.message, lambda: interruption.requested)
        told: tuple[str, ...] = ()
        while True:
            claimed, busy, owners = claim(workdir, sweep.trials, sweep.size, announce)
            done = [t for t in sweep.trials if is_done(workdir, t)]
            before = sum(steps[trial.id] for trial in done)
            progress.update(before, trials=len(done))
            if claimed is None:
                if busy and interruption.requested:
                    count = f"{len(done)} of {len(sweep.trials)}"
                    raise Interrupted(f"stopped: {count} trials done")
                if not busy or not wait:
                    break
                if owners != told:
                    told = owners
                    who = ", ".join(owners)
                    progress.message(f"waiting for {busy} trials, run by {who}")
                # Another process runs them. If it dies, its lock is free and its
                # chunk is claimed here.
                time.sleep(POLL_SECONDS)
                continue

            def watch(tick: engine.Tick, before: int = before) -> None:
                # NaN where every lane has diverged, without a warning.
                losses = None if tick.losses is None else np.ravel(tick.losses)
                loss = None if losses is None else float(np.fmin.reduce(losses))
                progress.update(before + tick.step * tick.lanes, loss=loss)

            with claimed.lock:
                trial = claimed.trials[0]
                name = sweep.names[group_key(trial)]
                progress.message(f"{printable(name)}: {len(claimed.trials)} trials")
                dataset = sweep.data(trial)
                chunk = engine.Chunk(
                    claimed.trials,
                    [trial_folder(workdir, trial.id) for trial in claimed.trials],
                    claimed.checkpoints,
                    claimed.identity,
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
    asked = trials[0].config["report"]
    interpolate = trials[0].config["tuning"].get("interpolate", False)
    while any(left.values()):
        # In the sweep's order, whose first label is the baseline where none is named.
        found = {run.id: run for run in load_runs(workdir)}
        done = table([found[trial.id] for trial in trials if trial.id in found])
        added: list[Added] = []
        if left["widen"] and (added := additions(trials, done, asked["metric"])):
            left["widen"] -= 1
            why = "best rate at the end of a grid"
        elif left["lengthen"]:
            longer = lengthened(
                trials, done, asked["baseline"], asked["metric"], interpolate
            )
            added = [Added(trial, trial.config["steps"]) for trial in longer]
            left["lengthen"] -= 1
            why = "speedup beyond the baseline's lengths"
        if not added:
            break
        value_of = {one.trial.id: one.value for one in added}
        grown = Sweep([one.trial for one in added], sweep.max_lanes)
        for key, group in grown.groups.items():
            values = sorted({value_of[trial.id] for trial in group})
            shown = ", ".join(f"{value:g}" for value in values)
            name = printable(grown.names[key])
            print(f"{why}: {name} adds {shown}")
        prepare(grown, workdir, about, earlier=trials)
        run(grown, workdir)
        trials += grown.trials


def trials_of(config: dict[str, Any], path: str, arg: str = "") -> list[Trial]:
    """The trials that a config file's ``sweep()`` yields over a base config."""
    return trials_from(config, load_module(path), arg)


def trials_from(config: dict[str, Any], module: ModuleType, arg: str) -> list[Trial]:
    """The trials that the ``sweep()`` of a config file, as a module, yields."""
    if not hasattr(module, "sweep"):
        raise ConfigError(
            f"--config={module.__file__} has no sweep(): add one that yields"
            " overrides, or train the config alone with python -m"
            " gnomon.experiments.train"
        )
    return make_trials(config, call(module, "sweep", arg))


def dry_run(sweep: Sweep) -> str:
    """The plan of a sweep as a table; compiles and times, and writes nothing."""
    plans = []
    for key, group in sweep.groups.items():
        plans.append(
            plan_group(sweep.names[key], group, sweep.data(group[0]), sweep.max_lanes)
        )
        print(
            f"planned {len(plans)}/{len(sweep.groups)}: {printable(sweep.names[key])}",
            file=sys.stderr,
        )
    return plan_table(plans)


def main(given: Given) -> None:
    """The command."""
    values, workdir = given.flags, given.workdir
    distributed = values.engine == "ray" and not values.dry_run
    if distributed:
        # Here, because it imports this module, and after it Ray.
        from gnomon.experiments import on_ray

        on_ray.connect()
    if not values.dry_run:
        need("matplotlib", "the report's pictures")
    trials = trials_from(given.config, given.file.module, given.file.arg)
    if any(trial.config["tensorboard"] for trial in trials):
        need("tensorboardX", "config.tensorboard=True (False goes without)")
    sweep = Sweep(trials, values.max_lanes)
    print(f"{len(trials)} trials in {len(sweep.groups)} groups")
    if values.dry_run:
        print(printable(dry_run(sweep), keep="\n"))
        return
    run: Callable = run_sweep
    if distributed:
        run = partial(
            on_ray.run_sweep,
            cpus=values.ray_cpus,
            gpus=values.ray_gpus,
            retries=values.ray_retries,
        )
    else:
        sweep.check_devices()
    run = partial(run, keep_checkpoints=values.keep_checkpoints)
    about = {
        "config": given.file.path,
        "arg": given.file.arg,
        "command": given.words,
    }
    run_widening(sweep, workdir, about, run)
    report.main(workdir)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of a sweep."""
    switch, whole, number, choice = (
        functools.partial(kind, flag_values=values)
        for kind in (
            flags.DEFINE_bool,
            flags.DEFINE_integer,
            flags.DEFINE_float,
            flags.DEFINE_enum,
        )
    )
    switch("dry_run", False, "Print the plan and its cost; run nothing.")
    whole("max_lanes", 0, "Most trials side by side; 0: what fits.", lower_bound=0)
    switch("keep_checkpoints", False, "Keep checkpoints of done trials.")
    choice("engine", "local", ["local", "ray"], "Who runs the trials: local or ray.")
    number("ray_cpus", 1, "CPUs of a Ray task.", lower_bound=0)
    number("ray_gpus", 0, "GPUs of a Ray task.", lower_bound=0)
    whole("ray_retries", 3, "Deaths that a Ray task may survive.", lower_bound=0)


def run(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    launch(main, __doc__, define, argv)


if __name__ == "__main__":
    run()
