"""Runs a config's grid: ``python -m gnomon.experiments.sweep --config= --workdir=``.

The config file's ``sweep()`` yields override mappings; each is a trial. Trials that
can share a compiled program run side by side in it. With ``config.tuning.widen`` the
grids then grow until the best learning rate of each lies inside, and with
``config.tuning.lengthen`` the baseline until its lengths hold every speedup; where
``sweep()`` leaves fields to a sampler, it asks for trials round by round
(`gnomon.experiments.config.search`). A rerun
skips what is done and goes on with the rest; several processes may work on one folder.
With ``--engine=ray`` they are tasks of a Ray cluster
(`gnomon.experiments.fleet.on_ray`), with ``--engine=slurm`` jobs of Slurm
(`gnomon.experiments.fleet.on_slurm`).
"""

import functools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from absl import flags

from gnomon.experiments import report
from gnomon.experiments.config.cli import (
    Given,
    define_dry_run,
    launch,
    need,
    need_writers,
)
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.search import read_sweep
from gnomon.experiments.config.source import call, load_module
from gnomon.experiments.config.trials import Trial, make_trials
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import printable
from gnomon.experiments.fleet import engines
from gnomon.experiments.fleet.local import run_sweep
from gnomon.experiments.fleet.plan import plan_group, plan_table
from gnomon.experiments.fleet.preparation import Sweep, prepare
from gnomon.experiments.tuning.rounds import run_widening
from gnomon.experiments.tuning.sampling import Sampler
from gnomon.experiments.tuning.widen import Added

__all__ = [
    "Sweep",
    "dry_run",
    "main",
    "prepare",
    "run",
    "run_sweep",
    "run_widening",
    "trials_from",
    "trials_of",
]


def trials_of(config: dict[str, Any], path: str, arg: str = "") -> list[Trial]:
    """The trials that a config file's ``sweep()`` yields over a base config."""
    return trials_from(config, load_module(path), arg)


def trials_from(config: dict[str, Any], module: ModuleType, arg: str) -> list[Trial]:
    """The trials that the ``sweep()`` of a config file, as a module, yields."""
    return make_trials(config, _overrides(module, arg))


def _overrides(module: ModuleType, arg: str) -> Any:
    if not hasattr(module, "sweep"):
        raise ConfigError(
            f"--config={module.__file__} has no sweep(): add one that yields"
            " overrides, or train the config alone with python -m"
            " gnomon.experiments.train"
        )
    return call(module, "sweep", arg)


def dry_run(sweep: Sweep, peak: float = 0.0) -> str:
    """The plan of a sweep as tables; compiles and times, and writes nothing.

    Args:
      sweep: the sweep.
      peak: FLOPs a second that a device can do at most; 0 where it is to be known.
    """
    plans = []
    for key, group in sweep.groups.items():
        name, data = sweep.names[key], sweep.data(group[0])
        plans.append(plan_group(name, group, data, sweep.max_lanes, peak))
        print(
            f"planned {len(plans)}/{len(sweep.groups)}: {printable(sweep.names[key])}",
            file=sys.stderr,
        )
    return plan_table(plans)


def main(given: Given) -> None:
    """The command."""
    values, workdir = given.flags, given.workdir
    if values.distributed:
        raise UserError(
            "--distributed: a sweep runs a trial in one process; train one config on"
            " many hosts with python -m gnomon.experiments.train --distributed, or"
            " start the sweep without it on each host: they share its trials"
        )
    engine = None if values.dry_run else engines.connect(values)
    if not values.dry_run:
        need("matplotlib", "the report's pictures")
    overrides = _overrides(given.file.module, given.file.arg)
    trials, searches = read_sweep(given.config, overrides)
    asked: Callable[[], list[Added]] | None = None
    if values.dry_run:
        trials += [trial for one in searches for trial in one.drafts()]
    elif searches:
        need("optuna", "what sweep() searches")
        asked = Sampler(searches, workdir).asked
        trials += [one.trial for one in asked()]
    need_writers(trial.config for trial in trials)
    sweep = Sweep(trials, values.max_lanes)
    print(f"{len(trials)} trials in {len(sweep.groups)} groups")
    if values.dry_run:
        print(printable(dry_run(sweep, values.peak_flops), keep="\n"))
        return
    if engine is None:
        sweep.check_devices()
    report.load()
    run = partial(engine or run_sweep, keep_checkpoints=values.keep_checkpoints)
    about = {
        "config": given.file.path,
        "arg": given.file.arg,
        "command": given.words,
    }
    run_widening(sweep, workdir, about, run, asked)
    report.main(workdir)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of a sweep."""
    switch, whole = (
        functools.partial(kind, flag_values=values)
        for kind in (flags.DEFINE_bool, flags.DEFINE_integer)
    )
    define_dry_run(values)
    whole("max_lanes", 0, "Most trials side by side; 0: what fits.", lower_bound=0)
    switch("distributed", False, "Of one config's training alone; refused here.")
    switch("keep_checkpoints", False, "Keep checkpoints of done trials.")
    engines.define(values)


def run(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    launch(main, __doc__, define, argv)


if __name__ == "__main__":
    run()
