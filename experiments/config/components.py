"""Builds the components of a config before anything runs.

A component refuses numbers outside its own range, but only those that it sees: a
compiled program takes them as input. So each is built once with the numbers themselves.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from gnomon.experiments.config.chain import clip_in, specs_in
from gnomon.experiments.config.rates import scheduled
from gnomon.experiments.config.resolve import ConfigError, build
from gnomon.experiments.console.errors import UserError


def check_components(config: Mapping) -> None:
    """Builds the schedule and the optimizers of a config with its own numbers.

    Raises:
      ConfigError: one of them refuses its numbers, or is not what it should be.
    """
    specs = specs_in(config) | clip_in(config)
    _components(json.dumps([specs, config["schedule"], config["steps"]]))


@functools.lru_cache(maxsize=1024)
def _components(parts: str) -> None:
    specs, spec, steps = json.loads(parts)

    def schedule_of(peak):
        schedule = _built("schedule", spec, peak=peak, steps=steps)
        if not callable(schedule):
            raise ConfigError(
                f"config.schedule.name={spec['name']!r}: returned a"
                f" {type(schedule).__name__}, not a function of the step"
            )
        return schedule

    for field, component in specs.items():
        built = _built(field, scheduled(component, schedule_of))
        if not (callable(getattr(built, "init", None)) and hasattr(built, "update")):
            raise ConfigError(
                f"config.{field}.name={component['name']!r}: returned a"
                f" {type(built).__name__}, not an optax transformation"
            )


def _built(section: str, spec: Mapping[str, Any], **provided: Any) -> Any:
    try:
        return build(spec, **provided)
    except UserError:
        raise
    except Exception as error:
        said = f"{spec['name']}: {type(error).__name__}: {error}"
        raise ConfigError(f"config.{section}: {said}") from error
