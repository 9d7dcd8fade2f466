"""What a config may say of the chain around its optimizer, and of parameter groups.

    config.clip = dict(name="optax.clip_by_global_norm", max_norm=1.0)
    config.parameter_groups = [
        dict(where="role:embedding", multiplier=0.3),
        dict(where="blocks/.*/kernel$", learning_rate=2e-2, weight_decay=0.1),
        dict(where="role:gain", name="optax.sgd", learning_rate=0.1),
        dict(where=""),
    ]
    config.decay_mask = ["role:embedding", "role:hidden", "role:head"]

A step goes through the chain in this order:

1. ``clip``: a component of the gradients, by its dotted path: by global norm, by value
   (``optax.clip``), by unit (``gnomon.optimizers.adaptive_clip``), or any other.
2. The optimizer: `config.optimizer`, or that of a leaf's group. ``parameter_groups``
   are ordered rules (`gnomon.parameters.rules`), the first that fits a leaf decides,
   and all leaves are covered. A group with a ``name`` has an optimizer of its own, one
   with keywords alone has `config.optimizer` with these in place of its own, and one
   with none shares `config.optimizer` with the others like it: what that computes over
   a tree it computes over the leaves of them all.
3. Weight decay, within the optimizer: of the leaves that a rule of ``decay_mask`` fits,
   by the ``weight_decay_mask`` or ``mask`` that optimizers take.
4. ``multiplier`` of a group: of its updates, so of the learning rate and of all that
   this scales.

Numbers of it are traced as those of the optimizer are; a sweep varies them by
``clip.max_norm`` or ``parameter_groups.0.multiplier``. Each ``learning_rate`` is a peak
of the schedule. What is empty is not there.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gnomon.experiments.config.ranges import Number, check_optimizer, defaults_of
from gnomon.experiments.config.resolve import ConfigError, check, resolve
from gnomon.parameters.rules import check_rule

OWN = ("where", "multiplier")
"""The fields of a group that are no keywords of its optimizer."""
_MULTIPLIER = Number(0.0, float("inf"))
_MASKS = ("weight_decay_mask", "mask")
_DECAYS = ("weight_decay", "weight_decay_rate")


def group_spec(optimizer: Mapping, group: Mapping) -> dict | None:
    """The optimizer of a group; None where it shares `config.optimizer`.

    >>> group_spec({"name": "optax.sgd", "learning_rate": 1.0},
    ...            {"where": "bias$", "learning_rate": 0.1})
    {'name': 'optax.sgd', 'learning_rate': 0.1}
    """
    keywords = {key: value for key, value in group.items() if key not in OWN}
    if not keywords:
        return None
    return keywords if "name" in keywords else {**optimizer, **keywords}


def clip_in(config: Mapping) -> dict[str, Mapping]:
    """The clip of a config by its field; nothing where there is none.

    >>> clip_in({"clip": {"name": ""}})
    {}
    """
    clip = config.get("clip") or {}
    return {"clip": clip} if clip.get("name") else {}


def specs_in(config: Mapping) -> dict[str, dict]:
    """The optimizers of a config by the field they stand in, masked where that is said.

    Raises:
      ConfigError: a decay mask that an optimizer has no argument for.
    """
    specs = {"optimizer": dict(config["optimizer"])}
    for at, group in enumerate(config.get("parameter_groups") or ()):
        if (spec := group_spec(config["optimizer"], group)) is not None:
            specs[f"parameter_groups[{at}]"] = spec
    if config.get("decay_mask"):
        masks = {field: masked(spec, None, field) for field, spec in specs.items()}
        if not any(count for _, count in masks.values()):
            raise ConfigError(
                f"config.decay_mask: {config['optimizer']['name']} takes no"
                f" {' or '.join(_MASKS)}: it has no weight decay to mask"
            )
    return specs


def masked(spec: Mapping, mask: Any, field: str = "optimizer") -> tuple[dict, int]:
    """A component with a mask of weight decay wherever it, or a nested one, takes one.

    Args:
      spec: the component.
      mask: as optax's argument of that name.
      field: where it stands, for messages.

    Returns:
      The component, and how many masks it was given.

    Raises:
      ConfigError: it has a mask already, or decays without one.

    Example:
      >>> masked({"name": "optax.adamw", "learning_rate": 0.1}, "a mask")
      ({'name': 'optax.adamw', 'learning_rate': 0.1, 'mask': 'a mask'}, 1)
    """
    spec, count = dict(spec), 0
    for key, value in spec.items():
        if isinstance(value, Mapping) and "name" in value:
            spec[key], more = masked(value, mask, f"{field}.{key}")
            count += more
    function = resolve(spec["name"], f"{field}.name")
    takes, known = _keywords(function), defaults_of(function)
    decays = [name for name in takes if name.endswith(_DECAYS)]
    taken = next((name for name in _MASKS if name in takes and decays), None)
    if taken is not None and spec.get(taken) is not None:
        raise ConfigError(
            f"config.{field}.{taken}: config.decay_mask says it too; keep one"
        )
    for name in decays:
        bare = taken is None or name not in _DECAYS
        if bare and spec.get(name, known.get(name)) not in (None, 0, 0.0):
            raise ConfigError(
                f"config.decay_mask: {spec['name']} has no mask for its {name};"
                f" set config.{field}.{name}=0.0, or say it by config.parameter_groups"
            )
    if taken is not None:
        spec[taken], count = mask, count + 1
    return spec, count


def _keywords(function: Callable) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin without a signature
        return []


def check_chain(config: Mapping) -> None:
    """Refuses what no chain can be built of.

    Raises:
      ConfigError: names the field and the fix.
    """
    for name in ("parameter_groups", "decay_mask"):
        if not isinstance(config[name], list | tuple):
            raise ConfigError(f"config.{name}={config[name]!r}: needs a list")
    for field, spec in clip_in(config).items():
        check(spec, field)
    fields = [field for field in config["clip"] if field != "name"]
    if fields and not clip_in(config):
        raise ConfigError(
            f"config.clip.{fields[0]}: there is no config.clip.name; give one, such as"
            " 'optax.clip_by_global_norm'"
        )
    for at, group in enumerate(config["parameter_groups"]):
        _check_group(f"parameter_groups[{at}]", group)
    for rule in config["decay_mask"]:
        _check_rule(rule, "decay_mask")
    for field, spec in specs_in(config).items():
        if field != "optimizer":  # which is checked with the other components
            check(spec, field)
            check_optimizer(spec, field)


def _check_group(field: str, group: Any) -> None:
    if not isinstance(group, Mapping) or "where" not in group:
        raise ConfigError(
            f"config.{field}={group!r}: needs fields, 'where' among them: a regex, or"
            " 'role:embedding' and the like"
        )
    _check_rule(group["where"], f"{field}.where")
    multiplier = group.get("multiplier", 1.0)
    if not _MULTIPLIER.allows(multiplier):
        raise ConfigError(
            f"config.{field}.multiplier={multiplier!r}: needs {_MULTIPLIER}"
        )


def _check_rule(rule: Any, field: str) -> None:
    try:
        check_rule(rule, f"config.{field}")
    except ValueError as error:
        raise ConfigError(str(error).rstrip(".")) from error
