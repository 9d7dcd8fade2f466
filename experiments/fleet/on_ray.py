"""Runs a sweep on a Ray cluster: ``... gnomon.experiments.sweep --engine=ray``.

The cluster is the one that ``RAY_ADDRESS`` names, else one that runs on this machine,
else one that is started on it. There are as many tasks as chunks, so that Ray sees how
much there is to do; those that find nothing left end at once. A task asks for
``--cpus``, ``--gpus`` and ``--memory``; ``--max_lanes`` cuts a group into chunks for
several tasks. Ray starts a task that dies again, up to ``--retries`` times. What a task
does is in `gnomon.experiments.fleet.remote`.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import Trial
from gnomon.experiments.fleet import remote
from gnomon.experiments.fleet.local import POLL_SECONDS
from gnomon.experiments.fleet.preparation import Sweep

STOP_SECONDS = 60.0  # for the tasks to write their checkpoints


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


def work(trials: Sequence[tuple[str, dict]], workdir: str, *options: Any) -> None:
    """A task."""
    mine = [Trial(trial_id, config) for trial_id, config in trials]
    remote.work(mine, Path(workdir), *options, stream=io.StringIO())


class Tasks:
    """The tasks of a sweep; as `gnomon.experiments.fleet.remote.Workers`."""

    def __init__(self, ray: Any, task: Any, max_lanes: int, *options: Any) -> None:
        self._ray, self._task = ray, task
        self._max_lanes, self._options = max_lanes, options
        self._tasks: list[Any] = []

    def start(self, left: Sequence[Trial], folder: Path) -> None:
        """Submits as many as there are chunks."""
        trials = self._ray.put([(trial.id, trial.config) for trial in left])
        self._tasks = [
            self._task.remote(trials, str(folder), self._max_lanes, *self._options)
            for _ in range(remote.chunks_of(left, self._max_lanes))
        ]

    def alive(self) -> bool:
        """Waits for one to end, a moment at most."""
        if self._tasks:
            ended, self._tasks = self._ray.wait(self._tasks, timeout=POLL_SECONDS)
            self._raise_failure(ended)
        return bool(self._tasks)

    def stop(self) -> None:
        """Cancels them; to a task it is a Ctrl-C: it writes its checkpoint and ends."""
        for task in self._tasks:
            self._ray.cancel(task)
        if self._tasks:
            count = len(self._tasks)
            self._ray.wait(self._tasks, num_returns=count, timeout=STOP_SECONDS)

    def _raise_failure(self, ended: Sequence[Any]) -> None:
        try:
            self._ray.get(ended)
        except ConfigError as error:
            # Ray's copy of the error also shows the task's trace.
            raise getattr(error, "cause", error) from None


def run_sweep(
    sweep: Sweep,
    workdir: Path,
    keep_checkpoints: bool = False,
    *,
    cpus: float = 1,
    gpus: float = 0,
    memory: float = 0,
    retries: int = 3,
) -> None:
    """Runs what is left of a sweep as tasks; other processes may be doing the same.

    Args:
      sweep: the sweep, after `gnomon.experiments.sweep.prepare`.
      workdir: its folder.
      keep_checkpoints: keep each chunk's last checkpoints after its results.
      cpus: CPUs of a task.
      gpus: GPUs of a task.
      memory: GiB of a task; 0: no matter.
      retries: how often a task that dies is started again.

    Raises:
      ConfigError: a task refuses its trial.
      Interrupted: stopped on request, after checkpoints.
    """
    ray = connect()
    asked: dict[str, Any] = dict(num_cpus=cpus, num_gpus=gpus, max_retries=retries)
    if memory:
        asked["memory"] = int(memory * 2**30)
    task = ray.remote(work).options(**asked, name="gnomon sweep")
    cores = max(1, int(cpus))
    tasks = Tasks(ray, task, sweep.max_lanes, keep_checkpoints, cores)
    remote.watch(tasks, sweep, workdir)
