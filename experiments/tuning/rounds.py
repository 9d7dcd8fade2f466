"""Runs a sweep and then, by rounds, what its tuning adds to it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gnomon.experiments.console.shown import printable
from gnomon.experiments.fleet.local import run_sweep
from gnomon.experiments.fleet.preparation import Sweep, prepare
from gnomon.experiments.records.runs import load_runs, table
from gnomon.experiments.tuning.lengthen import lengthened
from gnomon.experiments.tuning.widen import Added, additions


def run_widening(
    sweep: Sweep,
    workdir: Path,
    about: dict[str, Any],
    run: Callable[[Sweep, Path], None] = run_sweep,
    asked: Callable[[], list[Added]] | None = None,
) -> None:
    """Runs a sweep, then what `config.tuning` adds to it, by rounds.

    Samplers ask for the next points of their searches until these are over. Then
    ``widen`` rounds add rates to grids; when every grid is wide enough, ``lengthen``
    rounds add lengths to the baseline, whose grids may then be widened in turn.

    Args:
      sweep: the sweep.
      workdir: its folder.
      about: what ``sweep.json`` says of it besides.
      run: the engine that runs a sweep to its end.
      asked: tells what samplers ask for, of which the sweep has the first points.
    """
    prepare(sweep, workdir, about)
    run(sweep, workdir)
    trials = list(sweep.trials)

    def grow(added: Sequence[Added], why: str) -> None:
        value_of = {one.trial.id: one.value for one in added}
        grown = Sweep([one.trial for one in added], sweep.max_lanes, sweep.programs)
        for key, group in grown.groups.items():
            values = sorted({value_of[trial.id] for trial in group})
            shown = ", ".join(f"{value:g}" for value in values)
            name = printable(grown.names[key])
            print(f"{why}: {name} adds {shown}")
        prepare(grown, workdir, about, earlier=trials)
        run(grown, workdir)
        trials.extend(grown.trials)

    while asked is not None:
        known = {trial.id for trial in trials}
        if not (added := [one for one in asked() if one.trial.id not in known]):
            break
        grow(added, "searched")
    tuning = [trial.config["tuning"] for trial in trials]
    left = {
        name: max(one.get(name, 0) for one in tuning) for name in ("widen", "lengthen")
    }
    told = trials[0].config["report"]
    interpolate = trials[0].config["tuning"].get("interpolate", False)
    while any(left.values()):
        # In the sweep's order, whose first label is the baseline where none is named.
        found = {run.id: run for run in load_runs(workdir)}
        done = table([found[trial.id] for trial in trials if trial.id in found])
        added = []
        if left["widen"] and (added := additions(trials, done, told["metric"])):
            left["widen"] -= 1
            why = "best rate at the end of a grid"
        elif left["lengthen"]:
            longer = lengthened(
                trials, done, told["baseline"], told["metric"], interpolate
            )
            added = [Added(trial, trial.config["steps"]) for trial in longer]
            left["lengthen"] -= 1
            why = "speedup beyond the baseline's lengths"
        if not added:
            break
        grow(added, why)
