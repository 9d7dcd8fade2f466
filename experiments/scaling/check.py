"""Refuses bad columns before any work starts, with what is wrong and what to do."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def checked(
    unknowns: int, *, distinct: Mapping[str, int] | None = None, **columns: Any
) -> dict[str, np.ndarray]:
    """Columns as float64 arrays that a law can be fitted to.

    Args:
      unknowns: How many parameters the law has; there must be more rows than that.
      distinct: How many distinct values a column must hold at least, by its name. A
        term with a coefficient and an exponent next to a constant takes three.
      **columns: Array-likes of one dimension: lists, arrays, columns of a DataFrame.

    Returns:
      The columns, in the order given.

    Raises:
      ValueError: A column has the wrong shape or length, is not of numbers, holds a
        value that is missing or not positive, or does not vary; or there are too few
        rows. The message names the column.

    Example:
      >>> checked(1, loss=[3.0, 2.0])
      {'loss': array([3., 2.])}
      >>> checked(1, loss=[3.0, -2.0])
      Traceback (most recent call last):
      ValueError: loss: 1 of 2 values are not positive (first: row 1, -2.0); a law ...
    """
    result: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        try:
            values = np.array(column, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: not a column of numbers ({error})") from error
        if values.ndim != 1:
            raise ValueError(
                f"{name}: has shape {values.shape}; give one number a run, [runs]"
            )
        _refuse(
            name, values, ~np.isfinite(values), "NaN or infinite", "drop those runs"
        )
        _refuse(
            name,
            values,
            values <= 0,
            "not positive",
            "a law in powers needs positive numbers: drop those runs or mend it",
        )
        result[name] = values
    rows = {name: len(values) for name, values in result.items()}
    if len(set(rows.values())) > 1:
        lengths = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise ValueError(f"columns differ in length: {lengths}; give one row a run")
    count = next(iter(rows.values()))
    if count <= unknowns:
        raise ValueError(
            f"{', '.join(result)}: {count} runs for a law of {unknowns} parameters;"
            f" give at least {unknowns + 1}"
        )
    for name, least in (distinct or {}).items():
        found = len(np.unique(result[name]))
        if found < least:
            raise ValueError(
                f"{name}: {found} distinct value{'s' * (found > 1)} in {count} runs,"
                f" {least} are needed to tell its part in the law; add runs with"
                f" another {name}"
            )
    return result


def _refuse(name, values, bad, what, fix):
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{name}: {bad.sum()} of {len(values)} values are {what}"
            f" (first: row {row}, {values[row]}); {fix}"
        )
