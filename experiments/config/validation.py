"""Refuses a config that cannot run, before any work starts."""

import re
from collections.abc import Mapping
from typing import Any

from gnomon.experiments.config.accumulation import check_accumulate
from gnomon.experiments.config.chain import check_chain
from gnomon.experiments.config.components import check_components
from gnomon.experiments.config.devices import check_mesh
from gnomon.experiments.config.precision import check_parameters
from gnomon.experiments.config.ranges import check_fields, check_leaves, check_optimizer
from gnomon.experiments.config.rates import peaks
from gnomon.experiments.config.resolve import ConfigError, check, did_you_mean
from gnomon.experiments.config.spikes import check_spikes
from gnomon.experiments.config.template import OWN, defaults, plain
from gnomon.experiments.config.writers import check_writers


def validate(config: Mapping) -> None:
    """Refuses a config that cannot run, before any work starts.

    Raises:
      ConfigError: names the field and the fix.
    """
    known = plain(defaults())
    for field in config:
        if field not in known:
            raise ConfigError(
                f"config.{field}: unknown field{did_you_mean(field, known)}"
            )
    for field in known:
        if field not in config:
            raise ConfigError(f"config.{field}: missing; start from config.defaults()")
    for section, fields in known.items():
        if not isinstance(fields, Mapping):
            continue
        if not isinstance(config[section], Mapping):
            raise ConfigError(
                f"config.{section}={config[section]!r}: needs a section of fields"
            )
        for field in config[section]:
            if section in OWN and field not in fields:
                hint = did_you_mean(field, fields)
                raise ConfigError(f"config.{section}.{field}: unknown field{hint}")
    check_leaves(config)
    check_fields(config)
    check_mesh(config)
    check_accumulate(config)
    check_parameters(config)
    check_spikes(config)
    check_writers(config)
    layers = config["dynamics"].get("layers")
    try:
        re.compile(layers or "")
    except re.error as error:
        raise ConfigError(
            f"config.dynamics.layers={layers!r}: not a regex ({error})"
        ) from error
    check(config["model"], "model", provided={"rngs": "config.seed"})
    check(config["optimizer"], "optimizer")
    rate = next(iter(peaks(config["optimizer"])), "optimizer.learning_rate")
    provided = {"peak": f"config.{rate}", "steps": "config.steps"}
    check(config["schedule"], "schedule", provided=provided)
    check({"name": config["task"]}, "task", provided={"apply": "", "batch": ""})
    static = config["static"]
    if not isinstance(static, list | tuple):
        raise ConfigError(f"config.static={static!r}: needs a list of fields")
    for field in static:
        if field not in config["optimizer"]:
            hint = did_you_mean(str(field), config["optimizer"])
            raise ConfigError(
                f"config.static: {config['optimizer']['name'].split('.')[-1]} has no"
                f" field {field!r}{hint}"
            )
    check_optimizer(config["optimizer"])
    check_chain(config)
    _check_knob(config)
    check_components(config)


def _check_knob(config: Mapping) -> None:
    """Refuses a ``tuning.field`` that is no number of the optimizer."""
    field = config["tuning"].get("field", "")
    if not field:
        return
    node: Any = config["optimizer"]
    fix = (
        "; where the optimizers of a sweep differ, override tuning.field beside each"
        " ('' finds it)"
    )
    for part in field.split("."):
        if not isinstance(node, Mapping) or part not in node:
            hint = did_you_mean(field, _numbers(config["optimizer"]))
            raise ConfigError(
                f"config.tuning.field={field!r}: config.optimizer has no such"
                f" field{hint}{fix}"
            )
        node = node[part]
    if not isinstance(node, int | float) or isinstance(node, bool):
        raise ConfigError(
            f"config.tuning.field={field!r}: config.optimizer.{field} is {node!r}, not"
            f" a number{fix}"
        )


def _numbers(section: Mapping, prefix: str = "") -> list[str]:
    """The dotted names of the numbers in a section."""
    found = []
    for key, value in section.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append(prefix + key)
    return found
