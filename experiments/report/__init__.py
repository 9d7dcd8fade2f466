"""Reads a sweep's folder, or a table of runs, and writes the verdict.

    python -m gnomon.experiments.report --workdir=DIR [--export=FILE]
    python -m gnomon.experiments.report --table=FILE --output=DIR [--columns=...]

The first writes ``DIR/report.html``, ``DIR/report.json`` and ``DIR/runs.csv``, the
run table, and prints the same numbers. It may run while a sweep is under way, and then
says how much of it is done. The second does so for runs that others made: CSV, JSON
lines or Parquet, a row a run or a row a step, what wandb exports, or a folder of
TensorBoard's events. What the columns are called and mean is in ``docs/run_table.md``;
``--columns=label=optimizer,...`` says which is which.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from gnomon.experiments.console import command
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import printable
from gnomon.experiments.records.files import read_json
from gnomon.experiments.records.runs import load_runs, table

TABLE = "runs.csv"


def load() -> None:
    """Imports what a report takes.

    A sweep does so before its trials, since the package on disk may be another by the
    time that they are done.
    """
    from gnomon.experiments.exchange import export  # noqa: F401
    from gnomon.experiments.report import compose  # noqa: F401


def write_report(
    workdir: str | os.PathLike[str],
    baseline: str = "",
    metric: str = "",
    export: str | os.PathLike[str] = "",
    steps: bool = False,
    power: bool = False,
) -> str:
    """Writes `report.html`, `report.json` and `runs.csv` into a sweep's folder.

    Args:
      workdir: the sweep's folder.
      baseline: the label to compare with; "" takes what the config says.
      metric: the final metric to compare; "" takes what the config says.
      export: a further file for the run table, .csv, .jsonl or .parquet.
      steps: whether that file has a row for each step at which the metric was recorded.
      power: read speedups off a power law through the baseline's lengths.

    Returns:
      The report as plain text, its last line the page's path.

    Raises:
      FileNotFoundError: The folder is missing or holds no trials.
      UserError: No trial has finished, or none has the baseline or the metric.
    """
    # Loaded here, so that a dry run does not wait for pictures.
    from gnomon.experiments.exchange import export as tables
    from gnomon.experiments.records.provenance import select, trace
    from gnomon.experiments.report.compose import Material, compose

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
    metric = metric or section.get("metric") or "validation_loss"
    material = Material(
        columns=table(runs),
        recorded={run.id: run for run in runs},
        provenance=trace(runs, planned, sweep, notes),
        config=runs[0].config,
        baseline=baseline or section.get("baseline", ""),
        metric=metric,
        interpolate=runs[0].config.get("tuning", {}).get("interpolate", False),
        power=power,
    )
    words = compose(material, workdir)
    tables.export(workdir / TABLE, runs, metric)
    if export:
        tables.export(Path(export), runs, metric, steps)
    return words


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
    string("table", None, "A table of runs to report on, instead of a sweep's folder.")
    string("output", None, "The folder to write the report of a table into.")
    string(
        "columns",
        "",
        "Which columns of the table are which: label=optimizer,params=1e6*size.",
    )
    flags.DEFINE_enum(
        "curve",
        "linear",
        ["linear", "power"],
        "The baseline's loss between its lengths: linear in the logarithm of compute,"
        " or a power law fitted to four lengths or more.",
        flag_values=values,
    )
    string("export", "", "A further file for the sweep's run table.")
    flags.DEFINE_bool(
        "steps", False, "A row a step in the exported table.", flag_values=values
    )


def _started(values: flags.FlagValues) -> None:
    if values.table is None:
        if not values.workdir:
            raise UserError("--workdir: missing; give the folder of a sweep")
        for name in ("columns", "output"):
            if values[name].value:
                raise UserError(f"--{name} goes with --table; give one")
        words = write_report(
            values.workdir,
            values.baseline,
            values.metric,
            values.export,
            values.steps,
            values.curve == "power",
        )
    else:
        words = _of_table(values)
    print(printable(words, keep="\n"))


def _of_table(values: flags.FlagValues) -> str:
    from gnomon.experiments.report.foreign import write_table_report

    if values.workdir:
        raise UserError("--table and --workdir: give one of them")
    if values.export or values.steps:
        raise UserError("--export goes with --workdir; a table is a table already")
    if not values.output:
        raise UserError(
            "--output: missing; give the folder for the report of the table"
        )
    return write_table_report(
        values.table,
        values.output,
        values.columns,
        values.baseline,
        values.metric,
        values.curve == "power",
    )


def run(argv: Sequence[str] | None = None) -> None:
    """The console command."""
    command.run(_started, define, __doc__, argv)
