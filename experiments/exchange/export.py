"""A sweep as a run table in a file, a row a run or a row a step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.experiments.exchange.formats import write_cells
from gnomon.experiments.exchange.schema import COLUMNS, VERSION, is_read
from gnomon.experiments.records.metrics import is_number
from gnomon.experiments.records.runs import Run, table


def export(path: Path, runs: Sequence[Run], metric: str, steps: bool = False) -> None:
    """Writes the run table of a sweep.

    Args:
      path: ends in .csv, .jsonl or .parquet.
      runs: of the sweep.
      metric: the final metric that is the column ``loss``.
      steps: whether to write a row for each step at which the metric was recorded.

    Raises:
      UserError: the file's ending is of no format.
    """
    columns = cells_of_runs(runs, metric)
    write_cells(path, _by_step(columns, runs, metric) if steps else columns)


def cells_of_runs(runs: Sequence[Run], metric: str) -> dict[str, list[Any]]:
    """The columns of a sweep under the names of the format.

    What says only what was written or shown, and where, is left out.
    """
    found = {name: _cells(column) for name, column in table(runs).items()}
    results = [run.result or {} for run in runs]
    rows: dict[str, list[Any]] = {"schema": [VERSION] * len(runs)}
    own = {
        "loss": found.pop(f"final.{metric}", [None] * len(runs)),
        "metric": [metric] * len(runs),
        "device": [r.get("device") for r in results],
        "versions": [
            ", ".join(f"{k} {v}" for k, v in r.get("versions", {}).items()) or None
            for r in results
        ],
        "fingerprint": [r.get("data", {}).get("fingerprint") for r in results],
    }
    for column in COLUMNS:
        values = own.get(column.name) or found.pop(column.field, None)
        if values is not None and any(value is not None for value in values):
            rows[column.name] = values
    return rows | {name: values for name, values in found.items() if is_read(name)}


def _cells(column: np.ndarray) -> list[Any]:
    return [
        None if value is None or value != value else value for value in column.tolist()
    ]


def _by_step(
    columns: Mapping[str, list[Any]], runs: Sequence[Run], metric: str
) -> dict[str, list[Any]]:
    """Each run's row once for each step that has the metric, with the loss there."""
    names = [name for name in columns if not name.startswith("final.")]
    found: dict[str, list[Any]] = {name: [] for name in [*names, "step", "loss"]}
    for number, run in enumerate(runs):
        curve = run.metrics()
        losses = curve.get(metric, np.full(len(curve["step"]), np.nan))
        for step, loss in zip(curve["step"].tolist(), losses.tolist(), strict=True):
            if is_number(loss) and loss == loss:
                row = {name: columns[name][number] for name in names}
                row |= {"step": step, "loss": loss}
                for name, column in found.items():
                    column.append(row[name])
    return found
