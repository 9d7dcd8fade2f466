"""Where the learning rates of a config are.

Every ``learning_rate`` of the optimizer, and of each component that is nested in it, is
a peak that the schedule of the config is applied to. The one at the least depth is
called the learning rate: it is logged, and it is what a grid tunes by default.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import reduce
from typing import Any

KEYWORD = "learning_rate"


def rate_fields(fields: Collection[str]) -> list[str]:
    """The fields that are learning rates, the one at the least depth first.

    Args:
      fields: dotted names of a config's leaves, or the columns of a run table.

    >>> rate_fields(["optimizer.name", "optimizer.inner.name", "optimizer.inner.b1",
    ...              "optimizer.inner.learning_rate", "optimizer.kw.learning_rate"])
    ['optimizer.inner.learning_rate']
    """

    def is_rate(field: str) -> bool:
        parts = field.split(".")
        if parts[0] != "optimizer" or parts[-1] != KEYWORD:
            return False
        # What is nested is built, and so given a schedule, where it has a name.
        nested = (".".join(parts[:end]) for end in range(2, len(parts)))
        return all(f"{component}.name" in fields for component in nested)

    return sorted(filter(is_rate, fields), key=lambda field: (field.count("."), field))


def peaks(optimizer: Mapping) -> dict[str, Any]:
    """The learning rates of an optimizer's component by their fields, as `rate_fields`.

    >>> peaks({"name": "gnomon.optimizers.lawn",
    ...        "inner": {"name": "optax.sgd", "learning_rate": 0.1}})
    {'optimizer.inner.learning_rate': 0.1}
    """
    values = dict(_leaves(optimizer, "optimizer"))
    return {f: values[f] for f in rate_fields(values) if values[f] is not None}


def scheduled(optimizer: Mapping, schedule_of: Callable[[Any], Any]) -> dict:
    """A component with ``schedule_of(peak)`` in place of each learning rate."""
    result = _copy(optimizer)
    for field, peak in peaks(optimizer).items():
        _, *parents, last = field.split(".")
        reduce(lambda node, key: node[key], parents, result)[last] = schedule_of(peak)
    return result


def _copy(node: Mapping) -> dict:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in node.items()}


def _leaves(node: Mapping, path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value
