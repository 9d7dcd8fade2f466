"""Reads the trials of a sweep's folder and lays them out as a table of columns."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.config.fields import identity
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import printable
from gnomon.experiments.records.direction import with_errors
from gnomon.experiments.records.done import read_result
from gnomon.experiments.records.files import jsonable, read_object
from gnomon.experiments.records.metrics import (
    columns_of,
    is_number,
    number,
    read_metrics,
)


class Run(NamedTuple):
    """One trial as its folder tells it.

    Attributes:
      id: The trial's id, which is also its folder's name.
      label: The optimizer's name in tables and pictures.
      seed: The seed of initialization and data order.
      config: The fully resolved config.
      result: What `result.json` holds, or None for a trial that is not done.
      path: The trial's folder.
    """

    id: str
    label: str
    seed: int
    config: Mapping[str, Any]
    result: Mapping[str, Any] | None
    path: Path

    @property
    def status(self) -> str:
        """One of ``"finished"``, ``"diverged"`` and ``"unfinished"``."""
        return "unfinished" if self.result is None else str(self.result["status"])

    def metrics(self) -> dict[str, np.ndarray]:
        """Reads `metrics.jsonl`: a float64 array a name, NaN where a line lacks it.

        Lines are sorted by `step`. Of a step that was written twice, by a run that
        was cut off and resumed, the later line counts; a half-written line is left
        out. A trial without the file gives just an empty ``step``. Beside an accuracy
        there is its error (`gnomon.experiments.records.direction`).
        """
        try:
            rows = read_metrics(self.path, strict=False)
        except FileNotFoundError:
            rows = []
        return with_errors(columns_of(rows))


def load_runs(workdir: str | os.PathLike[str]) -> list[Run]:
    """Reads every trial of a sweep, done or not, in the order of their ids.

    Args:
      workdir: the sweep's folder, the one that holds `trials/`.

    Returns:
      A `Run` for each trial with a config. Metrics are read when asked for.

    Raises:
      FileNotFoundError: There is no such folder, or no trial in it.
      UserError: A config or result is not what the sweep writes, or it is that of
        another trial.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(
            f"--workdir={workdir}: no such folder; give the --workdir of a sweep"
        )
    runs = [_load(path.parent) for path in sorted(workdir.glob("trials/*/config.json"))]
    if not runs:
        raise FileNotFoundError(
            f"--workdir={workdir}: no trials in it; run a sweep there first:"
            " python -m gnomon.experiments.sweep --config=quickstart.py"
            f" --workdir={workdir}"
        )
    return sorted(runs, key=lambda run: run.id)


def _load(folder: Path) -> Run:
    config = read_object(folder / "config.json")
    result = read_result(folder, folder.name)
    try:
        label = config.get("label") or config["optimizer"]["name"].split(".")[-1]
        label = printable(label)
        if "trial" in (result or {}) and not _is_of(config, folder.name):
            raise UserError(
                f"{folder / 'config.json'} is not the config of trial {folder.name};"
                " delete the file and run the command of its sweep again"
            )
        return Run(folder.name, label, int(config["seed"]), config, result, folder)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'config.json'}: not a trial's config ({error!r})"
        ) from error


def _is_of(config: Mapping[str, Any], trial: str) -> bool:
    # A folder that someone named by hand tells nothing of its config.
    if not re.fullmatch(r"[0-9a-f]{12}", trial):
        return True
    # A sweep writes the name that is shown where the config itself gives none.
    return trial in (identity(config), identity({**config, "label": ""}))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names for the leaves of a nested config.

    >>> flatten({"steps": 10, "model": {"width": 8, "heads": [1, 2]}})
    {'steps': 10, 'model.width': 8, 'model.heads': '[1, 2]'}
    >>> flatten({"parameter_groups": [{"where": "", "multiplier": 0.3}]})
    {'parameter_groups.0.where': '', 'parameter_groups.0.multiplier': 0.3}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
            value = {str(at): one for at, one in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            scalar = value is None or isinstance(value, bool | int | float | str)
            flat[prefix + key] = value if scalar else json.dumps(jsonable(value))
    return flat


def table(runs: Iterable[Run]) -> dict[str, np.ndarray]:
    """The runs as columns, one row a run.

    Args:
      runs: as `load_runs` gives them.

    Returns:
      Columns ``id``, ``label``, ``seed`` and ``status``; from the results
      ``parameters``, ``compute`` (FLOPs of the whole training), ``units``
      (tokens or examples seen), ``seconds`` and ``final.<metric>``, beside an accuracy
      its error (`gnomon.experiments.records.direction`); and one column for each leaf
      of the configs under its dotted name. A column of numbers is float64 with NaN for
      a missing value, any other is an object array with None.

    Example:
      >>> config = {"label": "AdamW", "seed": 0, "steps": 9, "model": {"width": 8}}
      >>> result = {"status": "finished", "final": {"validation_loss": 2.5}}
      >>> columns = table([Run("a1", "AdamW", 0, config, result, Path("."))])
      >>> print(columns["model.width"], columns["final.validation_loss"])
      [8.] [2.5]
    """
    rows = []
    for run in runs:
        result = run.result or {}
        row = flatten(run.config)
        row |= {"id": run.id, "label": run.label, "status": run.status}
        row |= {"seed": run.seed}
        for name in ("parameters", "compute", "units", "seconds"):
            row[name] = number(result.get(name))
        final = result.get("final") or {}
        final = with_errors({name: number(value) for name, value in final.items()})
        row |= {f"final.{name}": value for name, value in final.items()}
        rows.append(row)
    names = {name: None for row in rows for name in row}
    return {name: as_column([row.get(name) for row in rows]) for name in names}


def as_column(values: list[Any]) -> np.ndarray:
    """Values as a column: float64 if they are numbers, else objects with None."""
    if all(v is None or is_number(v) for v in values):
        return np.array([number(v) for v in values], dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
