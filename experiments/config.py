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
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from gnomon.experiments.mesh import check_mesh
from gnomon.experiments.preflight import check_components
from gnomon.experiments.ranges import check_fields, check_leaves, check_optimizer
from gnomon.experiments.resolve import ConfigError, check, did_you_mean

PACKAGED = Path(__file__).parent / "configs"
# Sections whose fields are gnomon's; a component's own signature says what it takes.
_OWN = ("evaluate", "report", "dynamics", "tuning", "mesh")


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
            # Whom to compare with, by what: smaller is better.
            report=dict(baseline="", metric="validation_loss"),
            # The protocol of a sweep: rates added to a grid until its best one is
            # inside; optima read between the points of the grid; lengths added to the
            # baseline until they hold every speedup between them; the optimizer's field
            # that is tuned ("": its learning rate, or what the grid varies instead).
            tuning=dict(widen=0, interpolate=False, lengthen=0, field=""),
        )
    )


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose own sections have every field that they leave out.

    >>> filled({"evaluate": {"batch": 20}})
    {'evaluate': {'batch': 20, 'batches': 8, 'every': 0}}
    """
    known = plain(defaults())
    given = {name: config[name] for name in _OWN if name in config}
    sections = {
        name: known[name] | dict(section)
        for name, section in given.items()
        if isinstance(section, Mapping)
    }
    return {**config, **sections}


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


class File(NamedTuple):
    """A config file that has been read.

    Attributes:
      path: where it is.
      arg: what follows the colon of ``path.py:arg``.
      module: the file as a module.
      config: what its ``get_config`` returned.
    """

    path: str
    arg: str
    module: ModuleType
    config: ml_collections.ConfigDict


def load_module(path: str | Path) -> ModuleType:
    """Imports a config file by its path.

    Raises:
      ConfigError: there is no such file, or it is no Python; names the line.
    """
    path = Path(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file():
        raise ConfigError(f"--config={path}: no such config file")
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config={path}: not a Python file; its name ends in .py")
    try:
        compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:
        line = f"{path}:{error.lineno or 1}"
        raise ConfigError(f"{line}: {type(error).__name__}: {error.msg}") from error
    except ValueError as error:  # a null byte
        raise ConfigError(f"{path}: not a Python file: {error}") from error
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(module: ModuleType, name: str, arg: str) -> Any:
    """Calls a function of a config file, with the argument where it takes one.

    Raises:
      ConfigError: there is no such function, or it takes no argument and is given one.
    """
    path = module.__file__
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"--config={path} has no {name}(): define it")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--config={path}: {name} is no function of the file: define it"
        ) from error
    takes_arg = _binds(signature, arg)
    if not takes_arg and not _binds(signature):
        raise ConfigError(
            f"--config={path}: {name}{signature} needs more than one argument, which"
            " is the text after the colon of path.py:text"
        )
    if arg and not takes_arg and name == "get_config":
        raise ConfigError(f"--config={path}:{arg}: its get_config() takes no argument")
    return function(arg) if takes_arg else function()


def _binds(signature: inspect.Signature, *arguments: Any) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def open_config(argument: str) -> File:
    """Reads the config file of ``path.py:arg``.

    Raises:
      ConfigError: it has no ``get_config``, or that returns no config.
    """
    path, _, arg = packaged(argument).partition(":")
    module = load_module(path)
    config = call(module, "get_config", arg)
    if not isinstance(config, dict | ml_collections.ConfigDict):
        raise ConfigError(
            f"--config={path}: get_config() returned a {type(config).__name__}; start"
            " from config.defaults(), change it and return it"
        )
    return File(path, arg, module, _opened(path, config))


def _opened(path: str, given: Any) -> ml_collections.ConfigDict:
    """What a config file returned as a config that can be changed, with all fields."""
    try:
        config = ml_collections.ConfigDict(given)
        known = defaults()
        with config.unlocked():
            for name in _OWN:
                if isinstance(section := config.get(name), ml_collections.ConfigDict):
                    for field in set(known[name]) - set(section):
                        section[field] = known[name][field]
        plain(config)
    except ConfigError:
        raise
    except RecursionError as error:
        raise ConfigError(f"--config={path}: the config contains itself") from error
    # What the library raises for a key that is no name is not declared.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"--config={path}: get_config() returned no config: {error}"
        ) from error
    return config


def load(argument: str) -> dict:
    """The config of ``path.py:arg`` as a plain dict."""
    return plain(open_config(argument).config)


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


def plain(config: Any) -> Any:
    """A config as dicts, lists and scalars, as it is stored and hashed.

    Raises:
      ConfigError: a placeholder that needs a value and has none, or a config that
        contains itself.
    """
    try:
        return _plain(config, "config")
    except RecursionError as error:
        raise ConfigError("the config contains itself") from error


def _plain(config: Any, path: str) -> Any:
    if isinstance(config, Mapping | ml_collections.ConfigDict):
        return {
            str(key): _plain(_at(config, key, path), f"{path}.{key}") for key in config
        }
    if isinstance(config, list | tuple):
        return [_plain(value, f"{path}[{i}]") for i, value in enumerate(config)]
    if isinstance(config, np.generic | np.ndarray):
        return config.tolist()
    return config


def _at(config: Any, key: Any, path: str) -> Any:
    try:
        return config[key]
    except ml_collections.config_dict.RequiredValueError as error:
        raise ConfigError(
            f"{path}.{key}: a placeholder without a value; give it one in the file"
        ) from error


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
    other field must exist already and keep its type. What one of gnomon's own sections
    leaves out (``evaluate``, ``report``, ``tuning`` and the like) has its default.

    >>> override({"steps": 10, "model": {"name": "m", "width": 8}}, {"model.width": 16})
    {'steps': 10, 'model': {'name': 'm', 'width': 16}}
    """
    result = filled(copy.deepcopy(dict(config)))
    # Whole components first, then single fields, whatever order they came in.
    for field in sorted(changes, key=lambda f: f.count(".")):
        value = filled({field: plain(changes[field])})[field]
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
            if section in _OWN and field not in fields:
                hint = did_you_mean(field, fields)
                raise ConfigError(f"config.{section}.{field}: unknown field{hint}")
    check_leaves(config)
    check_fields(config)
    check_mesh(config)
    layers = config["dynamics"].get("layers")
    try:
        re.compile(layers or "")
    except re.error as error:
        raise ConfigError(
            f"config.dynamics.layers={layers!r}: not a regex ({error})"
        ) from error
    check(config["model"], "model", provided={"rngs": "config.seed"})
    check(config["optimizer"], "optimizer")
    peak = {"peak": "config.optimizer.learning_rate", "steps": "config.steps"}
    check(config["schedule"], "schedule", provided=peak)
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
