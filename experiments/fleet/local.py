"""Runs a sweep in this process: chunk by chunk, each claimed before it runs."""

import time
from pathlib import Path
from typing import TextIO

import numpy as np

from gnomon.experiments.config.trials import group_key
from gnomon.experiments.console.interrupt import Interrupted, Interruption
from gnomon.experiments.console.progress import Progress
from gnomon.experiments.console.shown import printable
from gnomon.experiments.fleet.chunks import claim, finish, is_done, trial_folder
from gnomon.experiments.fleet.preparation import Sweep, announcement
from gnomon.experiments.trial import engine
from gnomon.experiments.trial.cost import flops_per_step

POLL_SECONDS = 2.0


def run_sweep(
    sweep: Sweep,
    workdir: Path,
    keep_checkpoints: bool = False,
    *,
    wait: bool = True,
    stream: TextIO | None = None,
    interruption: Interruption | None = None,
) -> None:
    """Runs what is left of a sweep; other processes may be doing the same.

    Args:
      sweep: the sweep, after `prepare`.
      workdir: its folder.
      keep_checkpoints: keep each chunk's last checkpoints after its results.
      wait: stay until the trials that other processes run are done, to take over
        those of a process that dies.
      stream: where progress is shown; by default standard error.
      interruption: what may stop it; by default Ctrl-C and SIGTERM.

    Raises:
      Interrupted: stopped on request, after a checkpoint.
    """
    steps = {trial.id: trial.config["steps"] for trial in sweep.trials}
    with (
        interruption or Interruption() as interruption,
        Progress(
            sum(steps.values()),
            start=sum(steps[t.id] for t in sweep.trials if is_done(workdir, t)),
            trials=len(sweep.trials),
            stream=stream,
        ) as progress,
    ):
        announce = announcement(
            workdir, progress.message, lambda: interruption.requested
        )
        told: tuple[str, ...] = ()
        while True:
            claimed, busy, owners = claim(workdir, sweep.trials, sweep.size, announce)
            done = [t for t in sweep.trials if is_done(workdir, t)]
            before = sum(steps[trial.id] for trial in done)
            progress.update(before, trials=len(done))
            if claimed is None:
                if busy and interruption.requested:
                    count = f"{len(done)} of {len(sweep.trials)}"
                    raise Interrupted(f"stopped: {count} trials done")
                if not busy or not wait:
                    break
                if owners != told:
                    told = owners
                    who = ", ".join(owners)
                    progress.message(f"waiting for {busy} trials, run by {who}")
                # Another process runs them. If it dies, its lock is free and its
                # chunk is claimed here.
                time.sleep(POLL_SECONDS)
                continue

            def watch(tick: engine.Tick, before: int = before) -> None:
                # NaN where every lane has diverged, without a warning.
                losses = None if tick.losses is None else np.ravel(tick.losses)
                loss = None if losses is None else float(np.fmin.reduce(losses))
                progress.update(before + tick.step * tick.lanes, loss=loss)

            with claimed.lock:
                trial = claimed.trials[0]
                name = sweep.names[group_key(trial)]
                progress.message(f"{printable(name)}: {len(claimed.trials)} trials")
                dataset = sweep.data(trial)
                chunk = engine.Chunk(
                    claimed.trials,
                    [trial_folder(workdir, trial.id) for trial in claimed.trials],
                    claimed.checkpoints,
                    claimed.identity,
                )
                results = engine.run(
                    chunk,
                    sweep.lanes(claimed.trials),
                    dataset,
                    flops_per_step=flops_per_step(trial.config, dataset),
                    watch=watch,
                    stop=lambda: interruption.requested,
                )
                finish(claimed, workdir, results, keep_checkpoints)
