"""What the commands that train share: the config, the folder, the compilation cache."""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags, logging
from ml_collections import config_flags

from gnomon.experiments.config.changes import check_flags
from gnomon.experiments.config.source import File, open_config
from gnomon.experiments.config.template import plain
from gnomon.experiments.console import command
from gnomon.experiments.console.errors import UserError, missing

Define = Callable[[flags.FlagValues], None]


class Given(NamedTuple):
    """What a command that trains is given.

    Attributes:
      config: the config, with the changes of the command line.
      file: the file that it is from.
      workdir: the folder to read and write.
      flags: the other flags.
      words: the whole command line.
    """

    config: dict[str, Any]
    file: File
    workdir: Path
    flags: Any
    words: list[str]


def launch(
    main: Callable[[Given], None],
    about: str | None,
    define: Define = lambda values: None,
    argv: Sequence[str] | None = None,
    around: Callable[[Any], AbstractContextManager] = lambda values: nullcontext(),
) -> None:
    """Runs a command that takes ``--config`` and ``--workdir``.

    Args:
      main: the command.
      about: what ``--help`` says before it lists the flags.
      define: defines further flags.
      argv: the command line; by default that of the process.
      around: given the flags, a context to run the command in: before the config file,
        which may call jax, is read.
    """
    words = _joined(list(sys.argv if argv is None else argv))

    def defined(values: flags.FlagValues) -> None:
        string = functools.partial(flags.DEFINE_string, flag_values=values)
        string("config", None, "The config file: path.py, or path.py:argument.")
        string("workdir", None, "The folder to read and write.")
        string(
            "config.FIELD",
            None,
            "Changes a field of the config: --config.optimizer.learning_rate=3e-4.",
        )
        define(values)

    def started(values: flags.FlagValues) -> None:
        logging.set_verbosity(logging.WARNING)
        with around(values):
            file = opened(values.config)
            workdir = folder(values.workdir)
            config = changed(file, [word for word in words if _changes(word)])
            configure_jax()
            main(Given(config, file, workdir, values, words))

    kept = [word for word in words if not _changes(word)]
    command.run(started, defined, about, kept)


def _changes(word: str) -> bool:
    return word.startswith("-") and word.lstrip("-").removeprefix("no").startswith(
        "config."
    )


def _joined(words: Sequence[str]) -> list[str]:
    """A command line with ``--config.FIELD VALUE`` written as one word.

    >>> _joined(["train", "--config.steps", "20", "--config.tensorboard"])
    ['train', '--config.steps=20', '--config.tensorboard']
    """
    joined: list[str] = []
    for word in words:
        last = joined[-1] if joined else ""
        if _changes(last) and "=" not in last and not word.startswith("-"):
            joined[-1] = f"{last}={word}"
        else:
            joined.append(word)
    return joined


def opened(argument: str | None) -> File:
    """The config file that ``--config`` names.

    Raises:
      UserError: it names none.
    """
    if not argument:
        raise UserError(
            "--config: missing; give a config file, such as --config=quickstart.py"
        )
    return open_config(argument)


def changed(file: File, words: Sequence[str]) -> dict[str, Any]:
    """A file's config with the changes of a command line.

    Args:
      file: the file.
      words: as ``--config.steps=20``.

    Raises:
      ConfigError: a field that the config does not have, or a value of another type.
    """
    check_flags(file.config, words)
    values = flags.FlagValues()
    line = ["", *words]
    try:
        config_flags.DEFINE_config_dict(
            "config", file.config, flag_values=values, sys_argv=line
        )
        values(line)
    # What the library raises for a value that does not fit is not declared.
    except (flags.Error, ValueError, TypeError, LookupError, AttributeError) as error:
        field = f"{' '.join(words)}: " * isinstance(error, IndexError)
        raise UserError(
            f"{field}{error}; --config.FIELD=VALUE keeps a field's type"
        ) from error
    return plain(values.config)


def folder(argument: str | None) -> Path:
    """The folder that ``--workdir`` names; it need not exist.

    Raises:
      UserError: nothing can be written there.
    """
    if not argument:
        raise UserError("--workdir: missing; give the folder to read and write")
    path = Path(argument)
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"--workdir={path}: {existing} is a file; give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"--workdir={path}: no permission to write in {existing}; give another"
            " folder"
        )
    return path


def define_dry_run(values: flags.FlagValues) -> None:
    """Defines the flags of a dry run."""
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Print the plan and its cost; run nothing.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "peak_flops",
        0,
        "FLOPs a second of a device, for the MFU of --dry_run; 0: as published.",
        lower_bound=0,
        flag_values=values,
    )


def need(module: str, purpose: str) -> None:
    """Imports a package that work at its end would need.

    Raises:
      UserError: it is not installed; names the purpose and the fix.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{purpose}: {missing(error) or error}") from error


def need_writers(configs: Iterable[Mapping[str, Any]]) -> None:
    """Imports the packages that metrics are written by, as `need` does.

    Args:
      configs: of the trials.
    """
    configs = list(configs)
    if any(config["tensorboard"] for config in configs):
        need("tensorboardX", "config.tensorboard=True (False goes without)")
    for name in dict.fromkeys(n for config in configs for n in config["writers"]):
        need(name, f"config.writers.{name}")


def configure_jax(cpus: int | None = None) -> None:
    """Settings that make experiments fast, where the user has not chosen others.

    Compiled programs are kept between processes, and a CPU counts as one device for
    each core, so that the lanes of a sweep run on all of them.

    Args:
      cpus: the cores that this process may use; by default all that it has.
    """
    config: Any = jax.config  # its options are not declared as attributes
    if config.jax_compilation_cache_dir is None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        config.update("jax_compilation_cache_dir", str(Path(cache, "gnomon/xla")))
    if config.jax_num_cpu_devices < 0:
        config.update("jax_num_cpu_devices", cpus or len(os.sched_getaffinity(0)))
