"""Refuses bad columns before any work starts, with what is wrong and what to do."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

LEAST_DRAWS = 20  # fewer have no 95 % interval


def numbers(name: str, values: Any) -> np.ndarray:
    """Anything that holds numbers as float64, what is masked as NaN.

    Args:
      name: what to call it in an error.
      values: A number, or an array-like of any shape.

    Returns:
      An array of its own.

    Raises:
      ValueError: Texts, booleans, complex numbers, dates.

    Example:
      >>> numbers("loss", np.ma.masked_greater([3.0, 99.0], 10))
      array([ 3., nan])
      >>> numbers("loss", ["2.5"])
      Traceback (most recent call last):
      ValueError: loss: not a column of numbers (texts: '2.5')
    """
    if type(values) is np.ndarray and values.dtype.kind in "iuf":
        return values.astype(np.float64)
    given: np.ndarray = np.ma.filled(np.ma.asarray(values, dtype=object), np.nan)
    texts = [value for value in given.flat if isinstance(value, str | bytes)]
    if texts:
        raise ValueError(f"{name}: not a column of numbers (texts: {texts[0]!r})")
    if any(isinstance(value, bool | np.bool) for value in given.flat):
        raise ValueError(f"{name}: not a column of numbers (true and false)")
    try:
        return np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: not a column of numbers ({error})") from error


def positive(name: str, values: Any) -> np.ndarray:
    """Positive, finite numbers of any shape, where a law can be asked.

    Raises:
      ValueError: One is not, by `name`.

    Example:
      >>> positive("params", 0)
      Traceback (most recent call last):
      ValueError: params: 1 of 1 values are not positive (first: 0.0); a law in ...
    """
    found = numbers(name, values)
    _refuse_unfit(name, found)
    return found


def draws(bootstrap: Any) -> int:
    """The number of bootstrap draws: 0, or enough for an interval.

    Raises:
      ValueError: Anything else.
    """
    try:
        count = operator.index(bootstrap)
    except TypeError:
        count = -1
    if isinstance(bootstrap, bool) or not (count == 0 or count >= LEAST_DRAWS):
        raise ValueError(
            f"bootstrap={bootstrap!r}: must be 0 or at least {LEAST_DRAWS} draws,"
            " mostly 1000"
        )
    return count


def checked(
    unknowns: int, *, distinct: Mapping[str, int] | None = None, **columns: Any
) -> dict[str, np.ndarray]:
    """Columns as float64 arrays that a law can be fitted to.

    Args:
      unknowns: how many parameters the law has; there must be more rows than that.
      distinct: how many distinct values a column must hold at least, by its name. A
        term with a coefficient and an exponent next to a constant takes three.
      **columns: array-likes of one dimension: lists, arrays, columns of a DataFrame.

    Returns:
      The columns, in the order given.

    Raises:
      ValueError: A column has the wrong shape or length, is not of numbers, holds a
        value that is missing, masked or not positive, or does not vary; or there are
        too few rows that differ. The message names the column.

    Example:
      >>> checked(1, loss=[3.0, 2.0])
      {'loss': array([3., 2.])}
      >>> checked(1, loss=[3.0, -2.0])
      Traceback (most recent call last):
      ValueError: loss: 1 of 2 values are not positive (first: row 1, -2.0); a law ...
    """
    result: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        values = numbers(name, column)
        if values.ndim != 1:
            raise ValueError(
                f"{name}: has shape {values.shape}; give one number a run, [runs]"
            )
        _refuse_unfit(name, values)
        result[name] = values
    rows = {name: len(values) for name, values in result.items()}
    if len(set(rows.values())) > 1:
        lengths = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise ValueError(f"columns differ in length: {lengths}; give one row a run")
    count = next(iter(rows.values()))
    # A row that repeats another says nothing new.
    different = len(np.unique(np.stack(list(result.values())), axis=1).T)
    if different <= unknowns:
        kind = "different " * (different < count)
        raise ValueError(
            f"{', '.join(result)}: {different} {kind}runs for a law of {unknowns}"
            f" parameters; give at least {unknowns + 1}"
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


def _refuse_unfit(name: str, values: np.ndarray) -> None:
    _refuse(
        name,
        values,
        ~np.isfinite(values),
        "NaN, infinite or masked",
        "drop those runs",
    )
    _refuse(
        name,
        values,
        values <= 0,
        "not positive",
        "a law in powers needs positive numbers: drop those runs or mend it",
    )


def _refuse(
    name: str, values: np.ndarray, bad: np.ndarray, what: str, fix: str
) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        at = f"row {row}, " if values.ndim else ""
        raise ValueError(
            f"{name}: {bad.sum()} of {values.size} values are {what}"
            f" (first: {at}{values.flat[row]}); {fix}"
        )
