"""Reads a sweep's folder and writes its verdict: a page, a JSON file, a table.

``python -m gnomon.experiments.report --workdir=DIR`` writes ``DIR/report.html`` and
``DIR/report.json`` and prints the same numbers. It may run while a sweep is under
way, and then says how much of it is done.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from gnomon.experiments.console import command
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import printable
from gnomon.experiments.records.files import read_json, write_json, write_text
from gnomon.experiments.records.runs import load_runs, table


def write_report(
    workdir: str | os.PathLike[str], baseline: str = "", metric: str = ""
) -> str:
    """Writes `report.html` and `report.json` into a sweep's folder.

    Args:
      workdir: the sweep's folder.
      baseline: the label to compare with; "" takes what the config says.
      metric: the final metric to compare; "" takes what the config says.

    Returns:
      The report as plain text, its last line the page's path.

    Raises:
      FileNotFoundError: The folder is missing or holds no trials.
      UserError: No trial has finished, or none has the baseline or the metric.
    """
    # Loaded here, so that a sweep that only runs trials does not wait for pictures.
    from gnomon.experiments.records.provenance import select, trace
    from gnomon.experiments.report.analysis import analyze
    from gnomon.experiments.report.budgets import sizes_of
    from gnomon.experiments.report.curves import best_curves
    from gnomon.experiments.report.differences import differences
    from gnomon.experiments.report.law import baseline_law
    from gnomon.experiments.report.page import page
    from gnomon.experiments.report.profiles import profiles
    from gnomon.experiments.report.record import record
    from gnomon.experiments.report.text import terminal

    workdir = Path(workdir)
    every = load_runs(workdir)
    path = workdir / "sweep.json"
    sweep = read_json(path) if path.exists() else {}
    runs, planned, notes = select(every, sweep)
    if not any(run.result is not None for run in runs):
        raise UserError(
            f"--workdir={workdir}: 0 of {planned} trials done, so there is nothing to"
            " report; run the sweep's command again to go on"
        )
    section = runs[0].config.get("report", {})
    baseline = baseline or section.get("baseline", "")
    metric = metric or section.get("metric") or "validation_loss"
    interpolate = runs[0].config.get("tuning", {}).get("interpolate", False)
    columns = table(runs)
    analysis = analyze(columns, baseline, metric, interpolate)
    law = baseline_law(columns, analysis, runs[0].config)
    provenance = trace(runs, planned, sweep, notes)
    by_id = {run.id: run for run in runs}
    curves = best_curves(analysis.cells, by_id, metric)
    found = profiles(analysis, curves)
    sizes, joint = sizes_of(analysis), differences(columns, analysis)
    # One figure shows one metric: if a run lacks evaluations, all show training loss.
    if any(curve is not None and curve.name != metric for curve in curves.values()):
        curves = best_curves(analysis.cells, by_id, metric, "train_loss")
    said = record(analysis, provenance, law, found, sizes, joint)
    write_json(workdir / "report.json", said)
    html = page(analysis, provenance, curves, law, found, sizes, joint)
    write_text(workdir / "report.html", html)
    words = terminal(analysis, provenance, found, sizes, joint)
    return f"{words}\n\nreport: {workdir / 'report.html'}"


def main(workdir: str | os.PathLike[str], baseline: str = "", metric: str = "") -> None:
    """Writes the report of a folder and prints it."""
    print(printable(write_report(workdir, baseline, metric), keep="\n"))


def define(values: flags.FlagValues) -> None:
    """Defines the flags of a report."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    string("workdir", None, "The sweep's folder, read and written to.")
    string("baseline", "", "The label to compare with, instead of the config's.")
    metric = "The final metric to compare, instead of the config's; smaller is better"
    string("metric", "", f"{metric}, so validation_error and not validation_accuracy.")


def _started(values: flags.FlagValues) -> None:
    if not values.workdir:
        raise UserError("--workdir: missing; give the folder of a sweep")
    main(values.workdir, values.baseline, values.metric)


def run(argv: Sequence[str] | None = None) -> None:
    """The console command."""
    command.run(_started, define, __doc__, argv)
