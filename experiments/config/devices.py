"""What `config.mesh` may say: how many devices one trial takes, and how it is cut."""

import re
from collections.abc import Mapping
from typing import Any

from gnomon.experiments.config.resolve import ConfigError, is_whole

AXES = ("data", "model")
NAMED = ("fsdp", "zero1")
"""Rules that have a name: what they cut is in `gnomon.experiments.trial.mesh`."""


def size_of(config: Mapping) -> int:
    """How many devices one trial takes.

    >>> size_of({"mesh": {"data": 2, "model": 4}}), size_of({})
    (8, 1)
    """
    mesh = config.get("mesh") or {}
    return mesh.get("data", 1) * mesh.get("model", 1)


def rules_of(config: Mapping) -> list[Any]:
    """The rules of a mesh, in order; a name alone is the one rule.

    >>> rules_of({"mesh": {"rules": "zero1"}}), rules_of({"mesh": {}})
    (['zero1'], [])
    """
    rules = (config.get("mesh") or {}).get("rules", ())
    return [rules] if isinstance(rules, str) else list(rules)


def named_rule(config: Mapping) -> str | None:
    """The rule that has a name, if there is one."""
    named = [rule for rule in rules_of(config) if isinstance(rule, str)]
    return named[0] if named else None


def check_mesh(config: Mapping) -> None:
    """Refuses a mesh that no machine could run.

    Raises:
      ConfigError: names the field and the fix.
    """
    mesh = config["mesh"]
    for axis in AXES:
        size = mesh.get(axis, 1)
        if not is_whole(size, 1):
            raise ConfigError(
                f"config.mesh.{axis}={size!r}: needs an integer above 0 (1: not cut)"
            )
    data = mesh.get("data", 1)
    validation = config["evaluate"]["batch"]
    for field, batch in (("batch", config["batch"]), ("evaluate.batch", validation)):
        if batch % data:
            raise ConfigError(
                f"config.{field}={batch}: config.mesh.data={data} does not divide it;"
                f" use {batch // data * data or data}, or another mesh"
            )
    rules = rules_of(config)
    for rule in rules:
        if rule not in NAMED:
            _check_rule(rule)
    if any(rule in NAMED for rule in rules[:-1]):
        raise ConfigError(
            f"config.mesh.rules={rules!r}: a rule with a name is of every parameter;"
            " give one, as the last rule"
        )


def _check_rule(rule: Any) -> None:
    shown = f"config.mesh.rules: {rule!r}"
    try:
        regex, where = rule
        re.compile(regex)
        where = where if isinstance(where, str) else list(where)
    except re.error as error:
        raise ConfigError(f"{shown} does not start with a regex ({error})") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{shown} is not a regex and where to cut, nor one of {', '.join(NAMED)}"
        ) from error
    if isinstance(where, str):
        known = where in AXES
    else:
        named = [axis for axis in where if axis is not None]
        known = all(named.count(axis) == (axis in AXES) for axis in named)
    if not known:
        raise ConfigError(
            f"{shown} does not end with 'data', 'model', or a list, by axis, of 'data',"
            " 'model' (each at most once) or None"
        )
