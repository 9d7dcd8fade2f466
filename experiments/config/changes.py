"""Changes of a config, by overrides of a sweep or flags of a command line."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from gnomon.experiments.config.rates import KEYWORD, peaks
from gnomon.experiments.config.resolve import ConfigError, did_you_mean
from gnomon.experiments.config.template import filled, plain


def check_flags(config: Mapping, words: Iterable[str]) -> None:
    """Refuses ``--config.FIELD=VALUE`` for a field that the config does not have.

    Raises:
      ConfigError: names the field, and one that is like it.
    """
    for word in words:
        path = word.lstrip("-").partition("=")[0]
        _, *parts = path.split(".")
        node: Any = config
        for depth, part in enumerate(parts):
            part = part.partition("[")[0]
            if not isinstance(node, Mapping | ml_collections.ConfigDict):
                raise ConfigError(
                    f"{word}: {'.'.join(['config', *parts[:depth]])} has no fields"
                )
            if part not in node:
                where = ".".join(["config", *parts[:depth]])
                raise ConfigError(
                    f"{word}: {where} has no field {part!r}"
                    f"{did_you_mean(part, list(node))}; a new one goes into the file"
                )
            node = node[part]
        if isinstance(node, Mapping | ml_collections.ConfigDict):
            fields = ", ".join(node)
            raise ConfigError(f"{word}: a section; name a field of it: {fields}")


def _compatible(new: Any, old: Any) -> bool:
    if old is None or new is None or isinstance(old, Mapping):
        return isinstance(new, Mapping) == isinstance(old, Mapping) or old is None
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, float):
        return isinstance(new, int | float)
    return isinstance(new, type(old))


def home(field: str, config: Mapping) -> str:
    """Where a field lies: the learning rate may be that of a nested component."""
    optimizer = config.get("optimizer")
    if field != f"optimizer.{KEYWORD}" or not isinstance(optimizer, Mapping):
        return field
    return field if KEYWORD in optimizer else next(iter(peaks(optimizer)), field)


def at(config: Any, names: Iterable[str]) -> Any:
    """What a config has under names, which are positions in lists of sections.

    >>> at({"parameter_groups": [{"multiplier": 0.3}]}, ["parameter_groups", "0"])
    {'multiplier': 0.3}
    """
    for name in names:
        config = config[int(name) if isinstance(config, list) else name]
    return config


def _below(node: Any, part: str) -> Any:
    """What lies below a section, or a list of sections, under a name or a position."""
    if isinstance(node, list):
        return node[int(part)] if part.isdecimal() and int(part) < len(node) else None
    return node.get(part)


def override(config: Mapping, changes: Mapping[str, Any]) -> dict:
    """Returns ``config`` with dotted fields changed.

    A mapping replaces a whole component, ``{"optimizer": {"name": ...}}``; within
    a component new keywords may appear, since its own signature checks them. Any
    other field must exist already and keep its type; a word in place of a list is the
    list of it alone, as on the command line. What one of gnomon's own sections
    leaves out (``evaluate``, ``report``, ``tuning`` and the like) has its default.
    ``optimizer.learning_rate`` is the learning rate, however deep an optimizer has it
    (`gnomon.experiments.config.rates`), so that one sweep fits them all.

    >>> override({"steps": 10, "model": {"name": "m", "width": 8}}, {"model.width": 16})
    {'steps': 10, 'model': {'name': 'm', 'width': 16}}
    """
    result: Any = filled(copy.deepcopy(dict(config)))
    # Whole components first, then single fields, whatever order they came in.
    for field in sorted(changes, key=lambda f: f.count(".")):
        value = filled({field: plain(changes[field])})[field]
        *parents, last = home(field, result).split(".")
        node = result
        for depth, parent in enumerate(parents):
            found = _below(node, parent)
            last_one = depth + 1 == len(parents)
            if not isinstance(found, dict if last_one else dict | list):
                where = ".".join(parents[: depth + 1])
                known = node if isinstance(node, dict) and parent not in node else ()
                hint = did_you_mean(parent, known) if known else ""
                raise ConfigError(f"override {field!r}: no section {where!r}{hint}")
            node = found
        if last in node:
            if isinstance(node[last], list) and isinstance(value, str):
                value = [value]
            if not _compatible(value, node[last]):
                raise ConfigError(
                    f"override {field}={value!r}: config.{field} is"
                    f" {type(node[last]).__name__}, not {type(value).__name__}"
                )
            if isinstance(node[last], float) and isinstance(value, int):
                try:
                    value = float(value)
                except OverflowError as error:
                    raise ConfigError(f"override {field}: too large") from error
        elif "name" not in node:
            raise ConfigError(
                f"override {field!r}: unknown field{did_you_mean(last, node)}"
            )
        node[last] = value
    return result
