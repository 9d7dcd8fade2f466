"""Who runs the trials: the engines, their flags, and the one that is asked for."""

import functools
from collections.abc import Callable
from typing import Any

from absl import flags

from gnomon.experiments.fleet import on_ray, on_slurm


def connect(values: Any) -> Callable[..., None] | None:
    """Reaches the machines of the engine that the flags name, before JAX is used.

    Returns:
      What runs a sweep there, as `gnomon.experiments.fleet.local.run_sweep` does here;
      None where that is to run it.

    Raises:
      ConfigError: the engine is not installed, or not to be reached.
    """
    if values.engine == "local":
        return None
    asked: dict[str, Any] = dict(
        cpus=values.cpus,
        gpus=values.gpus,
        memory=values.memory,
        retries=values.retries,
    )
    if values.engine == "ray":
        on_ray.connect()
        return functools.partial(on_ray.run_sweep, **asked)
    extra = on_slurm.options(values.slurm_extra)
    on_slurm.connect(values.slurm_cluster)
    return functools.partial(
        on_slurm.run_sweep,
        **asked,
        cluster=values.slurm_cluster,
        partition=values.slurm_partition,
        minutes=values.slurm_minutes,
        jobs=values.slurm_jobs,
        extra=extra,
    )


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the engines."""
    whole, number, choice, text, several = (
        functools.partial(kind, flag_values=values)
        for kind in (
            flags.DEFINE_integer,
            flags.DEFINE_float,
            flags.DEFINE_enum,
            flags.DEFINE_string,
            flags.DEFINE_multi_string,
        )
    )
    names = ["local", "ray", "slurm"]
    choice("engine", "local", names, "Who runs the trials: local, ray or slurm.")
    number("cpus", 1, "CPUs of a Ray task or a Slurm job.", lower_bound=0)
    number("gpus", 0, "GPUs of a Ray task or a Slurm job.", lower_bound=0)
    number(
        "memory", 0, "GiB of a task or job; 0: as the cluster has it.", lower_bound=0
    )
    whole("retries", 3, "Deaths that a task or job may survive.", lower_bound=0)
    for name in ("cpus", "gpus", "retries"):
        flags.DEFINE_alias(f"ray_{name}", name, flag_values=values)
    choice(
        "slurm_cluster",
        "slurm",
        ["slurm", "local"],
        "Where Slurm jobs run: local is this machine, to try it.",
    )
    text("slurm_partition", None, "Partition of a Slurm job.")
    whole(
        "slurm_minutes",
        60,
        "Time of a Slurm job, until it writes its checkpoint and is queued again.",
        lower_bound=1,
    )
    whole("slurm_jobs", 256, "Most Slurm jobs at a time.", lower_bound=1)
    several(
        "slurm_extra", [], "An option of sbatch, such as account=lab; may be repeated."
    )
