"""Combinators for a config's ``sweep()``: grids as data.

A sweep is an iterable of override mappings, ``{"optimizer.learning_rate": 1e-3}``.
Each combinator takes and returns such iterables, so they nest:

>>> rates = product(
...     over("optimizer.learning_rate", logspace(1e-3, 4e-3, 3)), over("seed", [0, 1])
... )
>>> for override in rates:
...     print(override)
{'optimizer.learning_rate': 0.001, 'seed': 0}
{'optimizer.learning_rate': 0.001, 'seed': 1}
{'optimizer.learning_rate': 0.002, 'seed': 0}
{'optimizer.learning_rate': 0.002, 'seed': 1}
{'optimizer.learning_rate': 0.004, 'seed': 0}
{'optimizer.learning_rate': 0.004, 'seed': 1}
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Override = dict[str, Any]


def over(field: str, values: Iterable[Any]) -> list[Override]:
    """One override for each value of one field."""
    return [{field: value} for value in values]


def _merge(parts: Iterable[Mapping[str, Any]]) -> Override:
    merged: Override = {}
    for part in parts:
        both = merged.keys() & part.keys()
        if both:
            raise ValueError(f"two factors of a sweep set the same field: {min(both)}")
        merged |= part
    return merged


def product(*sweeps: Iterable[Override]) -> list[Override]:
    """Every combination of one override from each sweep; the last varies fastest."""
    return [_merge(parts) for parts in itertools.product(*map(list, sweeps))]


def zipped(*sweeps: Iterable[Override]) -> list[Override]:
    """The i-th overrides of all sweeps together; lengths must agree.

    >>> zipped(over("model.width", [16, 32]), over("model.depth", [1, 2]))
    [{'model.width': 16, 'model.depth': 1}, {'model.width': 32, 'model.depth': 2}]
    """
    return [_merge(parts) for parts in zip(*sweeps, strict=True)]


def chain(*sweeps: Iterable[Override]) -> list[Override]:
    """One sweep after another."""
    return list(itertools.chain(*sweeps))


def prefix(name: str, sweep: Iterable[Override]) -> list[Override]:
    """Puts ``name.`` before every field of a sweep.

    >>> prefix("optimizer", over("b1", [0.9]))
    [{'optimizer.b1': 0.9}]
    """
    return [{f"{name}.{k}": v for k, v in override.items()} for override in sweep]


def logspace(low: float, high: float, count: int) -> Sequence[float]:
    """``count`` values from low to high, equally spaced in the logarithm.

    Rounded to four significant digits, so that ids and tables stay readable.

    >>> logspace(1e-4, 1e-2, 5)
    [0.0001, 0.0003162, 0.001, 0.003162, 0.01]
    """
    if not 0 < low <= high or count < 1 or (count == 1 and low != high):
        raise ValueError(
            f"logspace needs 0 < low <= high and room for count values; got"
            f" low={low}, high={high}, count={count}"
        )
    step = math.log(high / low) / max(count - 1, 1)
    return [float(f"{low * math.exp(step * i):.4g}") for i in range(count)]
