"""Runs a chunk of trials from their configs to their results.

The loop a training run and a sweep share: data, steps, metrics, evaluation,
checkpoints. A training run is a chunk of one trial. A kill at any moment loses at
most the steps since the last checkpoint, and the rerun is bit-equal: the state, the
random keys, the position in the data and the sums behind the next metrics row are
all in the checkpoint.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.experiments.config.trials import Trial
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import Dataset, Order
from gnomon.experiments.records.done import read_result
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.journal import Journal, Tick, evaluate, observe
from gnomon.experiments.trial.lanes import Lanes, hypers_of, padded, seeds_of
from gnomon.experiments.trial.probes import due, settings_of
from gnomon.experiments.trial.results import make_result
from gnomon.experiments.trial.resume import first_lanes, resumed
from gnomon.experiments.trial.step import NEVER
from gnomon.models import parameter_count


class Chunk(NamedTuple):
    """Trials of one group that run together, and where they write.

    Attributes:
      trials: the lanes, in order.
      folders: each trial's own folder.
      checkpoints: the folder of the chunk's checkpoints, shared by its lanes.
      identity: whose checkpoints they are, as `Checkpoints` compares it.
    """

    trials: Sequence[Trial]
    folders: Sequence[Path]
    checkpoints: Path
    identity: Mapping[str, Any] = {}


def run(
    chunk: Chunk,
    lanes: Lanes,
    dataset: Dataset,
    *,
    flops_per_step: float,
    watch: Callable[[Tick], None] = lambda tick: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[dict]:
    """Trains every trial of a chunk to its end, from its last checkpoint if any.

    Args:
      chunk: what to run and where.
      lanes: the chunk's compiled program.
      dataset: its data.
      flops_per_step: training FLOPs of one step of one trial, for the results.
      watch: called after each step; with losses, once the next is under way.
      stop: asked after each step; when true, a checkpoint is written and
        `Interrupted` raised.

    Returns:
      The trials' results, to be written to their ``result.json``.

    Raises:
      Interrupted: ``stop`` asked for it.
    """
    config = chunk.trials[0].config
    steps, count = config["steps"], len(chunk.trials)
    settings = settings_of(config)
    started = time.monotonic()
    everyone = padded(chunk.trials)
    hypers = jax.tree.map(jnp.asarray, hypers_of(everyone))
    seeds, distinct, index = seeds_of(everyone)
    which = jnp.asarray(index)
    examples = len(next(iter(dataset.train.values())))
    orders = [Order(examples, config["batch"], seed) for seed in distinct]
    keeper = Checkpoints(chunk.checkpoints, identity=chunk.identity)
    # A trial that is done, beside one that is not, keeps its files as they are.
    folders = [
        None if read_result(folder, trial.id) is not None else folder
        for folder, trial in zip(chunk.folders, chunk.trials, strict=True)
    ]
    step, state, meta = resumed(
        keeper, folders, lanes, count, lambda: lanes.init(jnp.asarray(seeds), hypers)
    )
    for order, position in zip(orders, meta["orders"], strict=True) if step else ():
        order.set_state(position)
    journal = Journal(
        folders,
        resume_step=step,
        row=meta["row"],
        steps=steps,
        tensorboard=config["tensorboard"],
        params=lanes.state.params,
        settings=settings,
        watch=watch,
    )

    def seconds() -> float:
        return meta["seconds"] + time.monotonic() - started

    try:
        while step < steps:
            batches = _gather(dataset.train, [order.next() for order in orders])
            step += 1
            logging = step == steps or step % config["log_every"] == 0
            record: dict[str, jax.Array] = {}
            for tier in due(settings, step, logging):
                state, found = lanes.probes[tier](state, batches, which, hypers)
                record |= found
            if not (settings["free"] and logging):
                state = lanes.step(state, batches, which, hypers)
            evaluated: list[dict[str, jax.Array]] = []
            if step == steps or _every(step, config["evaluate"]["every"]):
                evaluated = evaluate(lanes, state, dataset, config["evaluate"])
            left = None
            if logging or evaluated or record:
                state, left = observe(state, evaluated, record, logging=logging)
            journal.note(step, left)
            stopping = step < steps and stop()
            if step == steps or stopping or _every(step, config["checkpoint_every"]):
                journal.flush()
                about = {
                    "orders": [order.get_state() for order in orders],
                    "seconds": seconds(),
                    "row": journal.row,
                    "metrics": journal.positions(),
                }
                keeper.save(step, first_lanes(state, count), about, before=journal.sync)
            if stopping:
                raise Interrupted(f"stopped at step {step} of {steps}")
    finally:
        try:
            keeper.close()  # first: it syncs what the journal has written
        finally:
            journal.close()
    diverged_at = np.asarray(state.diverged_at)
    return [
        make_result(
            trial,
            dataset,
            final={name: values[lane] for name, values in journal.row.items()},
            diverged_at=None if diverged_at[lane] == NEVER else int(diverged_at[lane]),
            parameters=parameter_count(state.params) // len(everyone),
            flops_per_step=flops_per_step,
            seconds=seconds() / count,
        )
        for lane, trial in enumerate(chunk.trials)
    ]


def _every(step: int, period: int) -> bool:
    return period > 0 and step % period == 0


def _gather(examples: Mapping[str, np.ndarray], indices: Sequence) -> dict:
    return {
        name: np.stack([array[index] for index in indices])
        for name, array in examples.items()
    }
