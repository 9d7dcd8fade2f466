"""What a run table does not tell, and what is therefore not claimed."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Table = Mapping[str, np.ndarray]


class Compute(NamedTuple):
    """What compute is counted in.

    Attributes:
      values: ``[runs]``, NaN where it is not known.
      unit: ``FLOP``, ``tokens`` or ``steps``; "" where it is not known.
      note: How it is counted, for a reader.
    """

    values: np.ndarray
    unit: str
    note: str


def compute_of(columns: Table) -> Compute:
    """The compute of each run, as far as a table tells it.

    Without a column of FLOPs it is 6 N D; without N or D, runs of one model and data
    compare by their lengths.

    >>> two = np.array([1e6, 2e6])
    >>> compute_of({"parameters": two, "units": 10 * two}).values
    array([6.0e+13, 2.4e+14])
    >>> compute_of({"steps": two}).unit
    'steps'
    """
    rows = len(next(iter(columns.values())))
    nothing = np.full(rows, np.nan)
    flops = columns.get("compute", nothing)
    if np.isfinite(flops).any():
        note = "Compute is the table's own column, however it was counted."
        return Compute(flops, "FLOP", note)
    size = columns.get("parameters", nothing)
    tokens = columns.get("units", nothing)
    if np.isfinite(size * tokens).all():
        note = "The table gives no compute: it is counted as 6 FLOP for each parameter"
        return Compute(6 * size * tokens, "FLOP", f"{note} and token.")
    one = all(
        len(set(map(str, column))) < 2
        for name, column in columns.items()
        if name.startswith(("model.", "data.")) or name in ("parameters", "batch")
    )
    lengths = {"tokens": tokens, "steps": columns.get("steps", nothing)}
    for unit, length in lengths.items():
        if one and np.isfinite(length).all():
            note = (
                f"The table gives no compute: it is counted in {unit}, all runs being"
            )
            return Compute(length, unit, f"{note} of one model as far as it tells.")
    note = "The table gives neither compute nor what to count it from (params and"
    return Compute(nothing, "", f"{note} tokens), so no speedups, only losses.")


def notes_of(columns: Table, given: set[str], steps: bool) -> list[str]:
    """Sentences on what a table leaves open.

    Args:
      columns: as of `gnomon.experiments.records.runs.table`.
      given: the columns of the format that were there.
      steps: whether it had a row for each step.
    """
    found = []
    if "seed" not in given:
        found.append(
            "The table gives no seeds: each run stands for itself, and no interval over"
            " seeds can be given."
        )
    if not any(name.startswith("optimizer.") for name in columns):
        found.append(
            "The table gives no grids: each run is taken as its optimizer's best, as"
            " given, and nothing here shows that it is tuned."
        )
        if "tried" not in given:
            found.append(
                "It does not say of how many settings each run is the best (the column"
                " tried): the best of many is lower by luck alone, which no interval"
                " here covers."
            )
    elif len({str(v) for v in columns.get("optimizer.learning_rate", ())}) == 1:
        found.append(
            "The table gives one learning rate: where an optimizer ran at one alone it"
            " is called untuned and is not compared; --columns=learning_rate= takes its"
            " runs as given."
        )
    if "params" not in given and not any(n.startswith("model.") for n in columns):
        found.append("The table gives no sizes: all runs are taken to be of one model.")
    if not any(name.startswith("data.") for name in columns):
        found.append(
            "The table names no data: all losses are taken to be measured on the same."
        )
    if not given & {"steps", "tokens"} and not steps:
        found.append("The table gives no lengths: all runs are taken to be as long.")
    return found


def grids_given(columns: Table) -> bool:
    """Whether a table tells what was tuned."""
    return any(name.startswith("optimizer.") for name in columns)
