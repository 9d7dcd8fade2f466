"""What the commands that train share: flags and the compilation cache."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from ml_collections import config_flags

from gnomon.experiments import command
from gnomon.experiments.config import packaged
from gnomon.experiments.interrupt import Interrupted
from gnomon.experiments.resolve import ConfigError


def launch(main: Callable[[], None]) -> None:
    """Runs a command that takes ``--config`` and ``--workdir``.

    A `ConfigError` ends it with one line on standard error and exit status 2, a
    requested stop with status 130; anything else is a fault and shows its trace.
    """
    # A config that ships with gnomon may be named without its path.
    sys.argv[1:] = [
        "--config=" + packaged(word.removeprefix("--config="))
        if word.startswith("--config=")
        else word
        for word in sys.argv[1:]
    ]
    config_flags.DEFINE_config_file("config", None, "The config file.")
    flags.DEFINE_string("workdir", None, "The folder to read and write.")
    flags.mark_flags_as_required(["config", "workdir"])

    def interruptible() -> None:
        logging.set_verbosity(logging.WARNING)
        configure_jax()
        try:
            main()
        except Interrupted as stopped:
            print(f"{stopped}; run the same command again to go on", file=sys.stderr)
            sys.exit(130)

    command.run(interruptible, ConfigError)


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
