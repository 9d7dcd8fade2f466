"""Which field of a config a grid tunes."""

import json
from collections.abc import Mapping

import numpy as np

from gnomon.experiments.config.ranges import OPTIMIZER
from gnomon.experiments.config.rates import rate_fields
from gnomon.scaling.comparison.knob import SECTION, Knob

SEARCH = "tuning.search"
# Taken first among several fields that a grid varies.
FIRST = ("optimizer.max_learning_rate", "optimizer.momentum")


def knob(field: str) -> Knob:
    """The knob of a field of a config.

    >>> knob("optimizer.momentum").fraction
    True
    """
    allowed = OPTIMIZER.get(field.rpartition(".")[2])
    return Knob(field, allowed is not None and allowed.high == 1)


def searched_in(
    table: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, tuple[float, float]]:
    """The intervals that a sampler chose some rows in, by field; none for a grid."""
    said = set(table[SEARCH][rows]) if SEARCH in table else set()
    # Where grids or other intervals were in the cell too, no one interval held it.
    if len(said) != 1 or not isinstance(text := said.pop(), str):
        return {}
    return {
        field: (float(low), float(high)) for field, low, high, _ in json.loads(text)
    }


def knob_of(table: Mapping[str, np.ndarray], rows: np.ndarray) -> Knob:
    """The field that some rows of a run table tune.

    Args:
      table: as of `gnomon.experiments.records.runs.table`.
      rows: those of one optimizer at one scale.

    Returns:
      The one that the config names in ``tuning.field``; else, of those that a sampler
      chose, a learning rate or the first; else the learning rate, however
      deep it lies (`gnomon.experiments.config.rates`); else,
      of the optimizer's numbers that differ between the rows, the first of `FIRST` or
      of the table; else a bound on the step, if there is one.
    """
    named = table.get("tuning.field")
    if named is not None and isinstance(name := named[rows[0]], str) and name:
        return knob(SECTION + name)
    numbers = {
        field: {float(v) for v in column[rows] if not np.isnan(v)}
        for field, column in table.items()
        if field.startswith(SECTION) and column.dtype != object
    }
    ordered = sorted(
        numbers, key=lambda f: FIRST.index(f) if f in FIRST else len(FIRST)
    )
    rates = [field for field in rate_fields(table) if numbers.get(field)]
    if searched := searched_in(table, rows):
        rates = [field for field in rates if field in searched] or list(searched)
    varied = [field for field in ordered if len(numbers[field]) > 1]
    bounds = [field for field in FIRST[:1] if numbers.get(field)]
    return knob(next(iter([*rates, *varied, *bounds]), ""))
