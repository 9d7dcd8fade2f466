"""The report of a run table: the page of a sweep, with what the table does not tell."""

import datetime
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.config.resolve import did_you_mean
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.progress import format_duration
from gnomon.experiments.exchange.table import RunTable, load_table
from gnomon.experiments.records.direction import with_errors
from gnomon.experiments.records.provenance import Provenance
from gnomon.experiments.records.tables import Stored
from gnomon.experiments.report.compose import Material, compose
from gnomon.experiments.report.source import Source


class Curves(NamedTuple):
    """The curves of a run of a table."""

    columns: dict[str, np.ndarray]

    def metrics(self) -> dict[str, np.ndarray]:
        """``step`` and the metrics there."""
        return with_errors(self.columns)


def write_table_report(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    columns: str = "",
    baseline: str = "",
    metric: str = "",
    power: bool = False,
) -> str:
    """Writes `report.html` and `report.json` for a run table.

    Args:
      path: the table: a file of CSV, JSON lines or Parquet, or a folder of such, or of
        TensorBoard events (``docs/run_table.md``).
      output: the folder to write into.
      columns: which columns are which, ``"label=optimizer,loss=eval/loss"``.
      baseline: the label to compare with; "" takes the table's, else its first.
      metric: the final metric to compare; "" takes the table's.
      power: read speedups off a power law through the baseline's lengths.

    Returns:
      The report as plain text, its last line the page's path.

    Raises:
      FileNotFoundError: There is no such file.
      UserError: The table cannot be read; names the column and the fix.
    """
    table = load_table(Path(path), columns)
    made = material(table, baseline, metric)._replace(power=power)
    return compose(made, Path(output))


def material(table: RunTable, baseline: str = "", metric: str = "") -> Material:
    """A run table as what a report is made of.

    Raises:
      UserError: no run has the baseline or the metric.
    """
    labels = list(dict.fromkeys(table.columns["label"]))
    if baseline and baseline not in labels:
        hint = did_you_mean(baseline, labels)
        raise UserError(f"--baseline={baseline}: no run has this label{hint}")
    metrics = [name[6:] for name in table.columns if name.startswith("final.")]
    if metric and metric not in metrics:
        raise UserError(
            f"--metric={metric}: no such column{did_you_mean(metric, metrics)}"
        )
    metric = metric or table.metric
    if f"final.{metric}" not in table.columns:
        raise UserError(
            f"--table={table.name}: its losses are of {', '.join(metrics)}; name one by"
            f" --metric={metrics[0]}"
        )
    said = table.report
    return Material(
        columns=table.columns,
        recorded={name: Curves(dict(curve)) for name, curve in table.curves.items()},
        provenance=_provenance(table),
        config=table.config,
        baseline=baseline or (said["baseline"] if said["baseline"] in labels else ""),
        metric=metric,
        interpolate=said["interpolate"],
        source=source_of(said),
    )


def source_of(said: Mapping[str, Any]) -> Source:
    """What `RunTable.report` says of its runs."""
    return Source(
        unit=said.get("unit") or "FLOP",
        given=said.get("given", False),
        swept=said.get("own", True),
        counted=said.get("counted", ""),
    )


def stored(name: str, made: Material) -> Stored:
    """A run table as it is stored beside those of sweeps."""
    facts = dict(made.provenance.facts) | {"not told": " ".join(made.provenance.notes)}
    report = {
        "baseline": made.baseline,
        "metric": made.metric,
        "interpolate": made.interpolate,
        "unit": made.source.unit,
        "given": made.source.given,
        "own": made.source.swept,
        "counted": made.source.counted,
    }
    return Stored(name, made.columns, report, facts)


def _provenance(table: RunTable) -> Provenance:
    status = Counter(table.columns["status"])
    counts = {"planned": len(table.columns["status"])}
    counts |= {name: status[name] for name in ("finished", "diverged", "unfinished")}
    seconds = table.columns["seconds"]
    facts = dict(table.facts)
    facts["runs"] = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    if np.isfinite(seconds).any():
        facts["training time"] = f"{format_duration(np.nansum(seconds))} over all runs"
    now = datetime.datetime.now().astimezone()
    facts["written"] = now.isoformat(" ", "seconds")
    return Provenance(counts, facts, table.notes, "runs")
