"""Config files: the Python file that ``--config=path.py:argument`` names."""

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.template import OWN, defaults, plain

PACKAGED = Path(__file__).parents[1] / "configs"


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
            for name in OWN:
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
