"""Configs: the fields every experiment has, arguments, overrides, validation.

Inside the suite a config is a plain nested dict; `ml_collections.ConfigDict` is how
a person writes one and changes it from the command line.
"""

import copy
import importlib.util
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from gnomon.experiments.mesh import check_mesh
from gnomon.experiments.resolve import ConfigError, check, did_you_mean, is_whole

PACKAGED = Path(__file__).parent / "configs"


def defaults() -> ml_collections.ConfigDict:
    """The fields of every experiment; a config file fills in the components."""
    return ml_collections.ConfigDict(
        dict(
            label="",  # name in tables and pictures; "" takes the optimizer's
            seed=0,  # initialization and data order; paired across optimizers
            steps=1000,
            batch=16,  # examples a step
            task="gnomon.experiments.tasks.next_token",
            model=dict(name="gnomon.models.TransformerLM"),
            data=dict(name="stdlib_text"),
            optimizer=dict(name="optax.adamw", learning_rate=1e-3),
            schedule=dict(name="gnomon.experiments.schedules.warmup_cosine"),
            static=(),  # optimizer fields a program must know before compilation
            evaluate=dict(every=0, batches=8, batch=64),  # every 0: at the end alone
            log_every=20,
            checkpoint_every=200,
            tensorboard=True,
            # One trial over several devices (`gnomon.experiments.mesh`).
            mesh=dict(data=1, model=1, rules=()),
            # Probes (`gnomon.experiments.probes`); every 0: off.
            dynamics=dict(free=False, cheap_every=0, full_every=0, layers=""),
            report=dict(baseline="", metric="validation_loss"),
            # The protocol of a sweep: rates added to a grid until its best one is
            # inside; optima read between the points of the grid; lengths added to the
            # baseline until they hold every speedup between them.
            tuning=dict(widen=0, interpolate=False, lengthen=0),
        )
    )


def parse_arg(arg: str | None, **known: Any) -> ml_collections.ConfigDict:
    """Reads ``"width=64,depth=2"`` with the types of the defaults given.

    >>> parse_arg("width=64,tied", width=32, tied=False).to_dict()
    {'tied': True, 'width': 64}
    """
    values = dict(known)
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if name not in known:
            raise ConfigError(f"config argument {name!r}{did_you_mean(name, known)}")
        kind = type(known[name])
        if kind is bool:
            choices = {"": True, "1": True, "true": True, "0": False, "false": False}
            if text.lower() not in choices:
                raise ConfigError(
                    f"config argument {name}={text!r}: give true or false"
                )
            values[name] = choices[text.lower()]
        elif not equals:
            raise ConfigError(f"config argument {name!r}: write {name}=VALUE")
        else:
            try:
                values[name] = kind(text)
            except ValueError as error:
                raise ConfigError(
                    f"config argument {name}={text!r}: needs {kind.__name__}"
                ) from error
    return ml_collections.ConfigDict(values)


def packaged(argument: str) -> str:
    """Lets ``--config=quickstart.py`` name a config that ships with gnomon."""
    path, colon, arg = argument.partition(":")
    if not Path(path).exists() and (PACKAGED / Path(path).name).exists():
        path = str(PACKAGED / Path(path).name)
    return path + colon + arg


def load_module(path: str | Path) -> ModuleType:
    """Imports a config file by its path."""
    path = Path(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ConfigError(f"--config={path}: no such config file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(argument: str) -> dict:
    """The config of ``path.py:arg`` as a plain dict."""
    path, _, arg = packaged(argument).partition(":")
    get_config = load_module(path).get_config
    takes_arg = bool(inspect.signature(get_config).parameters)
    return plain(get_config(arg) if takes_arg else get_config())


def plain(config: Any) -> Any:
    """A config as dicts, lists and scalars, as it is stored and hashed."""
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def _compatible(new: Any, old: Any) -> bool:
    if old is None or new is None or isinstance(old, Mapping):
        return isinstance(new, Mapping) == isinstance(old, Mapping) or old is None
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, float):
        return isinstance(new, int | float)
    return isinstance(new, type(old))


def override(config: Mapping, changes: Mapping[str, Any]) -> dict:
    """Returns ``config`` with dotted fields changed.

    A mapping replaces a whole component, ``{"optimizer": {"name": ...}}``; within
    a component new keywords may appear, since its own signature checks them. Any
    other field must exist already and keep its type.

    >>> override({"steps": 10, "model": {"name": "m", "width": 8}}, {"model.width": 16})
    {'steps': 10, 'model': {'name': 'm', 'width': 16}}
    """
    result = copy.deepcopy(dict(config))
    # Whole components first, then single fields, whatever order they came in.
    for field in sorted(changes, key=lambda f: f.count(".")):
        value = plain(changes[field])
        *parents, last = field.split(".")
        node = result
        for depth, parent in enumerate(parents):
            if not isinstance(node.get(parent), dict):
                where = ".".join(parents[: depth + 1])
                hint = did_you_mean(parent, node) if parent not in node else ""
                raise ConfigError(f"override {field!r}: no section {where!r}{hint}")
            node = node[parent]
        if last in node:
            if not _compatible(value, node[last]):
                raise ConfigError(
                    f"override {field}={value!r}: config.{field} is"
                    f" {type(node[last]).__name__}, not {type(value).__name__}"
                )
            if isinstance(node[last], float) and isinstance(value, int):
                value = float(value)
        elif "name" not in node:
            raise ConfigError(
                f"override {field!r}: unknown field{did_you_mean(last, node)}"
            )
        node[last] = value
    return result


def _positive(section: Mapping, fields: Iterable[str], path: str = "") -> None:
    for field in fields:
        value = section[field]
        if not is_whole(value, 1):
            raise ConfigError(
                f"config.{path}{field}={value!r}: needs an integer above 0"
            )


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
    for section in ("evaluate", "report", "dynamics", "tuning", "mesh"):
        for field in config[section]:
            if field not in known[section]:
                hint = did_you_mean(field, known[section])
                raise ConfigError(f"config.{section}.{field}: unknown field{hint}")
    _positive(config, ["steps", "batch", "log_every", "checkpoint_every"])
    _positive(config["evaluate"], ["batches", "batch"], "evaluate.")
    check_mesh(config)
    if not isinstance(config["seed"], int) or config["seed"] < 0:
        raise ConfigError(f"config.seed={config['seed']!r}: needs an integer >= 0")
    for field in ("cheap_every", "full_every"):
        value = config["dynamics"].get(field, 0)
        if not is_whole(value, 0):
            raise ConfigError(
                f"config.dynamics.{field}={value!r}: needs an integer >= 0 (0: never)"
            )
    widen = config["tuning"].get("widen", 0)
    if not is_whole(widen, 0):
        raise ConfigError(
            f"config.tuning.widen={widen!r}: needs an integer >= 0, the most rates that"
            " are added to one grid"
        )
    lengthen = config["tuning"].get("lengthen", 0)
    if not is_whole(lengthen, 0):
        raise ConfigError(
            f"config.tuning.lengthen={lengthen!r}: needs an integer >= 0, the most"
            " lengths that are added to the baseline of one model"
        )
    interpolate = config["tuning"].get("interpolate", False)
    if not isinstance(interpolate, bool):
        raise ConfigError(
            f"config.tuning.interpolate={interpolate!r}: needs true or false"
        )
    free, layers = (config["dynamics"].get(field) for field in ("free", "layers"))
    if not isinstance(free, bool | None):
        raise ConfigError(f"config.dynamics.free={free!r}: needs true or false")
    try:
        re.compile(layers or "")
    except re.error as error:
        raise ConfigError(
            f"config.dynamics.layers={layers!r}: not a regex ({error})"
        ) from error
    check(config["model"], "model", provided=("rngs",))
    optimizer = check(config["optimizer"], "optimizer")
    check(config["schedule"], "schedule", provided=("peak", "steps"))
    check({"name": config["task"]}, "task", provided=("apply", "batch"))
    for field in config["static"]:
        if field not in config["optimizer"]:
            hint = did_you_mean(field, config["optimizer"])
            raise ConfigError(
                f"config.static: {optimizer.__name__} has no field {field!r}{hint}"
            )
