"""Runs a sweep on a Ray cluster: ``... gnomon.experiments.sweep --engine=ray``.

The cluster is the one that ``RAY_ADDRESS`` names, else one that runs on this machine,
else one that is started on it. A task is the loop of a local sweep: it claims a chunk
of a group, runs it, and claims the next until none is free. There are as many tasks as
chunks, so that Ray sees how much there is to do; those that find nothing left end at
once. A task asks for ``--ray_cpus`` and ``--ray_gpus``; ``--max_lanes`` cuts a group
into chunks for several tasks.

All that counts is in the sweep's folder, on a file system that the machines share under
one path and that keeps `flock` between them (NFS 4 does). A task that dies gives its
claim up by dying. Ray starts it again, up to ``--ray_retries`` times, and whichever
task is the next to look goes on from the chunk's last checkpoint. The process that was
given the command shows progress, and trains nothing.
"""

import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from gnomon.experiments.config.cli import configure_jax
from gnomon.experiments.config.devices import size_of
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import Trial, groups
from gnomon.experiments.console.interrupt import Interrupted, Interruption
from gnomon.experiments.console.progress import Progress
from gnomon.experiments.fleet.chunks import is_done, running, trial_folder
from gnomon.experiments.fleet.local import POLL_SECONDS
from gnomon.experiments.fleet.local import run_sweep as run_here
from gnomon.experiments.fleet.preparation import Sweep
from gnomon.experiments.records.metrics import number, read_metrics

STOP_SECONDS = 60.0  # for the tasks to write their checkpoints
TAIL_BYTES = 1 << 16  # more than a row of metrics takes


def connect() -> Any:
    """Joins the cluster, once; returns the module `ray`.

    Call it before JAX is used: this process then leaves accelerators to the tasks.

    Raises:
      ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--engine=ray needs the package ray: pip install 'gnomon[ray]'"
        ) from error
    if not ray.is_initialized():
        jax.config.update("jax_platforms", "cpu")
        ray.init(log_to_driver=False)
    return ray


def work(
    trials: Sequence[tuple[str, dict]],
    workdir: str,
    max_lanes: int,
    keep: bool,
    cpus: int,
) -> None:
    """A task: runs chunks of the trials until no other is free.

    Args:
      trials: the trials' ids and configs.
      workdir: the sweep's folder.
      max_lanes: as of `Sweep`.
      keep: as ``keep_checkpoints`` of `gnomon.experiments.sweep.run_sweep`.
      cpus: the cores that it may use.
    """
    folder = Path(workdir)
    mine = [Trial(trial_id, config) for trial_id, config in trials]
    left = [trial for trial in mine if not is_done(folder, trial)]
    if left:
        configure_jax(cpus)
        sweep = Sweep(left, max_lanes)
        sweep.check_devices()
        run_here(sweep, folder, keep, wait=False, stream=io.StringIO())


def chunks_of(trials: Sequence[Trial], max_lanes: int) -> int:
    """How many chunks the trials make when memory does not force more."""
    count = 0
    for group in groups(trials).values():
        lanes = 1 if size_of(group[0].config) > 1 else max_lanes or len(group)
        count += -(-len(group) // lanes)
    return count


def steps_taken(workdir: Path, trial: Trial) -> int:
    """Steps of a trial: all of them when it is done, else those in its metrics."""
    if is_done(workdir, trial):
        return trial.config["steps"]
    folder = trial_folder(workdir, trial.id)
    try:
        rows = read_metrics(folder, strict=False, tail=TAIL_BYTES)
    except FileNotFoundError:
        return 0
    # Only shown: what is no row is the trainer's to find.
    steps = [number(row.get("step")) for row in rows]
    return int(next(filter(math.isfinite, reversed(steps)), 0))


def run_sweep(
    sweep: Sweep,
    workdir: Path,
    keep_checkpoints: bool = False,
    *,
    cpus: float = 1,
    gpus: float = 0,
    retries: int = 3,
) -> None:
    """Runs what is left of a sweep as tasks; other processes may be doing the same.

    Args:
      sweep: the sweep, after `gnomon.experiments.sweep.prepare`.
      workdir: its folder.
      keep_checkpoints: keep each chunk's last checkpoints after its results.
      cpus: CPUs of a task.
      gpus: GPUs of a task.
      retries: how often a task that dies is started again.

    Raises:
      ConfigError: a task refuses its trial, such as a mesh of more devices than the
        task has.
      Interrupted: stopped on request, after checkpoints.
    """
    ray = connect()
    task = ray.remote(work).options(
        num_cpus=cpus, num_gpus=gpus, max_retries=retries, name="gnomon sweep"
    )
    folder = workdir.resolve()
    with (
        Interruption() as interruption,
        Progress(
            sum(trial.config["steps"] for trial in sweep.trials),
            start=sum(steps_taken(folder, trial) for trial in sweep.trials),
            trials=len(sweep.trials),
        ) as progress,
    ):
        while left := [t for t in sweep.trials if not is_done(folder, t)]:
            trials = ray.put([(trial.id, trial.config) for trial in left])
            options = sweep.max_lanes, keep_checkpoints, max(1, int(cpus))
            tasks = [
                task.remote(trials, str(folder), *options)
                for _ in range(chunks_of(left, sweep.max_lanes))
            ]
            while tasks and not interruption.requested:
                ended, tasks = ray.wait(tasks, timeout=POLL_SECONDS)
                steps = sum(steps_taken(folder, trial) for trial in sweep.trials)
                done = sum(is_done(folder, trial) for trial in sweep.trials)
                progress.update(steps, trials=done)
                _raise_failure(ray, ended)
            if interruption.requested:
                _stop(ray, tasks)
                done = sum(is_done(folder, trial) for trial in sweep.trials)
                raise Interrupted(f"stopped: {done} of {len(sweep.trials)} trials done")
            if all(not is_done(folder, trial) for trial in left):
                # All are claimed: by other processes, or by a machine that is gone and
                # whose locks its file server has yet to drop.
                if owners := ", ".join(sorted(set(running(folder, left).values()))):
                    progress.message(f"waiting for {len(left)} trials, run by {owners}")
                time.sleep(POLL_SECONDS)


def _stop(ray: Any, tasks: Sequence[Any]) -> None:
    # To a task it is a Ctrl-C: it writes its checkpoint and ends.
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)


def _raise_failure(ray: Any, ended: Sequence[Any]) -> None:
    try:
        ray.get(ended)
    except ConfigError as error:
        # Ray's copy of the error also shows the task's trace.
        raise getattr(error, "cause", error) from None
