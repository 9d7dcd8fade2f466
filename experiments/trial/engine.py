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
from absl import logging as log

from gnomon.experiments.config.trials import Trial
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import Dataset, Examples
from gnomon.experiments.records.done import read_result
from gnomon.experiments.records.metrics import MetricsWriter, Position, missing_rows
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.lanes import Lanes, hypers_of, padded, seeds_of
from gnomon.experiments.trial.probes import columns, due, settings_of
from gnomon.experiments.trial.results import make_result
from gnomon.experiments.trial.step import NEVER, TrainState
from gnomon.models import parameter_count

START: dict[str, Any] = {"seconds": 0.0, "row": {}}


class Tick(NamedTuple):
    """What a run tells whoever watches it, after each step.

    Attributes:
      step: steps done.
      steps: steps in all.
      lanes: trials running side by side.
      losses: train losses by lane at a logging step, else None.
    """

    step: int
    steps: int
    lanes: int
    losses: np.ndarray | None


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
      watch: called after each step.
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
    orders = [dataset.order(config["batch"], seed) for seed in distinct]
    # A trial that is done, beside one that is not, keeps its files as they are.
    done = [
        read_result(folder, trial.id) is not None
        for folder, trial in zip(chunk.folders, chunk.trials, strict=True)
    ]

    def lost(meta: Mapping[str, Any]) -> str | None:
        for folder, past, written in zip(
            chunk.folders, done, meta["metrics"], strict=True
        ):
            if past or written is None:
                continue
            if problem := missing_rows(folder, Position(*written)):
                return problem
        return None

    keeper = Checkpoints(chunk.checkpoints, identity=chunk.identity)
    keeper.clean()
    restored = keeper.restore(
        _first_lanes(lanes.state, count), refuse=lost, optional=("probes",)
    )
    if restored is None:
        if keeper.notes:
            log.warning("training starts anew, from step 0")
        step, meta = 0, START
        state = lanes.init(jnp.asarray(seeds), hypers)
    else:
        step, state, meta = restored
        if has_holes(state.probes):
            # Probes were turned on or off since: what they carry begins as at step 0.
            anew = lanes.init(jnp.asarray(seeds), hypers)
            state = state._replace(probes=_first_lanes(anew, count).probes)
        state = _pad_lanes(state, count, lanes.state)
        for order, position in zip(orders, meta["orders"], strict=True):
            order.set_state(position)
    row: dict[str, list] = dict(meta["row"])
    writers = [
        None
        if past
        else MetricsWriter(folder, resume_step=step, tensorboard=config["tensorboard"])
        for folder, past in zip(chunk.folders, done, strict=True)
    ]

    def seconds() -> float:
        return meta["seconds"] + time.monotonic() - started

    def positions() -> list[Position | None]:
        return [None if w is None else w.position for w in writers]

    def sync() -> None:
        for writer in writers:
            if writer is not None:
                writer.sync()

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
            seen: dict[str, np.ndarray] = {}
            if logging:
                state, seen = _read_window(state)
            watch(Tick(step, steps, count, seen.get("train_loss")))
            if step == steps or _every(step, config["evaluate"]["every"]):
                seen |= evaluate(lanes, state, dataset, config["evaluate"])
            row |= {name: values.tolist() for name, values in seen.items()}
            if record:
                seen |= columns(record, state.params, settings)
            if seen:
                _write(writers, step, seen, np.asarray(state.diverged_at))
            stopping = step < steps and stop()
            if step == steps or stopping or _every(step, config["checkpoint_every"]):
                about = {
                    "orders": [order.get_state() for order in orders],
                    "seconds": seconds(),
                    "row": row,
                    "metrics": positions(),
                }
                keeper.save(step, _first_lanes(state, count), about, before=sync)
            if stopping:
                raise Interrupted(f"stopped at step {step} of {steps}")
    finally:
        try:
            keeper.close()  # first: it syncs what the writers have written
        finally:
            for writer in writers:
                if writer is not None:
                    writer.close()
    diverged_at = np.asarray(state.diverged_at)
    return [
        make_result(
            trial,
            dataset,
            final={name: values[lane] for name, values in row.items()},
            diverged_at=None if diverged_at[lane] == NEVER else int(diverged_at[lane]),
            parameters=parameter_count(state.params) // len(everyone),
            flops_per_step=flops_per_step,
            seconds=seconds() / count,
        )
        for lane, trial in enumerate(chunk.trials)
    ]


def has_holes(tree: Any) -> bool:
    """Whether leaves are shapes alone: a checkpoint did not hold them."""
    leaves = jax.tree.leaves(tree)
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def _every(step: int, period: int) -> bool:
    return period > 0 and step % period == 0


def _first_lanes(state: TrainState, count: int) -> TrainState:
    """The state of the real lanes: what is saved fits any number of devices."""

    def first(leaf: Any) -> Any:
        if leaf.shape[0] == count:
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype)
        return leaf[:count]

    return jax.tree.map(first, state)


def _pad_lanes(state: TrainState, count: int, like: TrainState) -> TrainState:
    """A saved state with its ghost lanes again, placed as the program wants it."""

    def pad(leaf: jax.Array, target: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.shape[0] == target.shape[0]:  # restored where it belongs
            return leaf
        index = np.minimum(np.arange(target.shape[0]), count - 1)
        return jax.device_put(leaf[index], target.sharding)

    return jax.tree.map(pad, state, like)


def _gather(examples: Mapping[str, Examples], indices: Sequence) -> dict:
    return {
        name: np.stack([array[index] for index in indices])
        for name, array in examples.items()
    }


def _read_window(state: TrainState) -> tuple[TrainState, dict[str, np.ndarray]]:
    """The means of the metrics since the last reading, and a state that starts anew."""
    sums = jax.device_get(state.window)
    steps = sums.pop("count")
    means = {
        name if name == "learning_rate" else f"train_{name}": total / steps
        for name, total in sums.items()
    }
    return state._replace(window=jax.tree.map(jnp.zeros_like, state.window)), means


def evaluate(
    lanes: Lanes, state: TrainState, dataset: Dataset, settings: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Means of the metrics over a fixed set of validation batches, by lane.

    The examples are spread evenly over the split and are the same at every step and
    for every trial, so that differences between trials are not differences of data.
    """
    available = len(next(iter(dataset.validation.values())))
    batches = max(1, min(settings["batches"], available // settings["batch"]))
    chosen = np.linspace(0, available - 1, batches * settings["batch"]).astype(int)
    totals: dict[str, np.ndarray] = {}
    for index in np.split(chosen, batches):
        batch = {name: array[index] for name, array in dataset.validation.items()}
        for name, values in jax.device_get(lanes.evaluate(state, batch)).items():
            key = f"validation_{name}"
            totals[key] = totals.get(key, 0.0) + np.asarray(values, np.float64)
    return {name: total / batches for name, total in totals.items()}


def _write(
    writers: Sequence[MetricsWriter | None],
    step: int,
    seen: Mapping[str, np.ndarray],
    diverged_at: np.ndarray,
) -> None:
    for lane, writer in enumerate(writers):
        if writer is None:
            continue
        row = {name: float(values[lane]) for name, values in seen.items()}
        if diverged_at[lane] != NEVER:
            row["diverged_at"] = int(diverged_at[lane])
        writer.write(step, row)
