"""What engines on other machines share: a worker's loop, and the watch over workers.

A worker is the loop of a local sweep: it claims a chunk of a group, runs it, and claims
the next until none is free. All that counts is in the sweep's folder, on a file system
that the machines share under one path and that keeps `flock` between them (NFS 4 does).
A worker that dies gives its claim up by dying, and whichever is the next to look goes
on from the chunk's last checkpoint. The process that was given the command shows
progress, and trains nothing.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TextIO

from gnomon.experiments.config.cli import configure_jax
from gnomon.experiments.config.devices import size_of
from gnomon.experiments.config.trials import Trial, groups
from gnomon.experiments.console.interrupt import Interrupted, Interruption
from gnomon.experiments.console.progress import Progress
from gnomon.experiments.fleet.chunks import is_done, running, trial_folder
from gnomon.experiments.fleet.local import POLL_SECONDS
from gnomon.experiments.fleet.local import run_sweep as run_here
from gnomon.experiments.fleet.preparation import Sweep
from gnomon.experiments.records.metrics import number, read_metrics

TAIL_BYTES = 1 << 16  # more than a row of metrics takes


class Workers(Protocol):
    """The workers of an engine."""

    def start(self, left: Sequence[Trial], folder: Path) -> None:
        """Asks for workers.

        Args:
          left: the trials that are not done.
          folder: the sweep's, as every machine names it.
        """

    def alive(self) -> bool:
        """Waits a moment; whether any worker runs, or waits for its machine.

        Raises:
          ConfigError: a worker refuses its trial.
        """

    def stop(self) -> None:
        """Ends them; those that train write their checkpoints."""


def work(
    trials: Sequence[Trial],
    folder: Path,
    max_lanes: int,
    keep: bool,
    cpus: int,
    *,
    interruption: Interruption | None = None,
    stream: TextIO | None = None,
) -> None:
    """A worker: runs chunks of the trials until no other is free.

    Args:
      trials: the trials of the sweep.
      folder: the sweep's.
      max_lanes: as of `Sweep`.
      keep: as ``keep_checkpoints`` of `gnomon.experiments.sweep.run_sweep`.
      cpus: the cores that it may use.
      interruption: what may stop it.
      stream: where it shows progress.
    """
    left = [trial for trial in trials if not is_done(folder, trial)]
    if left:
        configure_jax(cpus)
        sweep = Sweep(left, max_lanes)
        sweep.check_devices()
        run_here(
            sweep,
            folder,
            keep,
            wait=False,
            stream=stream,
            interruption=interruption,
        )


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


def watch(workers: Workers, sweep: Sweep, workdir: Path) -> None:
    """Runs what is left of a sweep by workers; other processes may be doing the same.

    Args:
      workers: those of the engine.
      sweep: the sweep, after `gnomon.experiments.sweep.prepare`.
      workdir: its folder.

    Raises:
      ConfigError: a worker refuses its trial, such as a mesh of more devices than it
        has.
      Interrupted: stopped on request, after checkpoints.
    """
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
            workers.start(left, folder)
            while not interruption.requested and workers.alive():
                steps = sum(steps_taken(folder, trial) for trial in sweep.trials)
                done = sum(is_done(folder, trial) for trial in sweep.trials)
                progress.update(steps, trials=done)
            if interruption.requested:
                workers.stop()
                done = sum(is_done(folder, trial) for trial in sweep.trials)
                raise Interrupted(f"stopped: {done} of {len(sweep.trials)} trials done")
            if all(not is_done(folder, trial) for trial in left):
                # All are claimed: by other processes, or by a machine that is gone and
                # whose locks its file server has yet to drop.
                if owners := ", ".join(sorted(set(running(folder, left).values()))):
                    progress.message(f"waiting for {len(left)} trials, run by {owners}")
                time.sleep(POLL_SECONDS)
        steps = sum(trial.config["steps"] for trial in sweep.trials)
        progress.update(steps, trials=len(sweep.trials))
