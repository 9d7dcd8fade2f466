"""Runs a chunk of trials from their configs to their results.

The loop a training run and a sweep share: data, steps, metrics, evaluation,
checkpoints. A training run is a chunk of one trial. A kill at any moment loses at
most the steps since the last checkpoint, and the rerun is bit-equal: the state, the
random keys, the position in the data and the sums behind the next metrics row are
all in the checkpoint. Several processes may run it together, on a mesh that spans their
devices; process 0 alone then writes rows.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.experiments.config.spikes import checkpoint_period, skips
from gnomon.experiments.config.trials import Trial
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import Dataset
from gnomon.experiments.hosts.accord import Accord
from gnomon.experiments.hosts.crew import crew
from gnomon.experiments.records.done import read_result
from gnomon.experiments.trial.abstract import of_one_lane
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.dispatch import Pace, Seen, steps_until_due
from gnomon.experiments.trial.feed import Block, Feed, HeldOut
from gnomon.experiments.trial.journal import Journal, Tick, left_by, observe
from gnomon.experiments.trial.lanes import Lanes, hypers_of, padded, seeds_of
from gnomon.experiments.trial.probes import due, settings_of
from gnomon.experiments.trial.results import make_result
from gnomon.experiments.trial.resume import first_lanes, resumed
from gnomon.experiments.trial.rewind import Rewinds
from gnomon.experiments.trial.shares import Share
from gnomon.experiments.trial.step import NEVER, TrainState
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
      watch: called after each dispatch; with losses, once the next is under way.
      stop: asked after each step; when true, a checkpoint is written, unless the
        run may go back to one of its own, and `Interrupted` raised.

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
    mates = crew()
    keeper = Checkpoints(chunk.checkpoints, identity=chunk.identity, crew=mates)
    rewinds = Rewinds(config, orders, count, of_one_lane(lanes.state.params))
    period = checkpoint_period(config)
    # A trial that is done, beside one that is not, keeps its files as they are.
    folders = [
        folder if mates.writes and read_result(folder, trial.id) is None else None
        for folder, trial in zip(chunk.folders, chunk.trials, strict=True)
    ]

    def restored() -> tuple[int, TrainState, Mapping[str, Any]]:
        keeper.wait()
        first = partial(lanes.init, jnp.asarray(seeds), hypers)
        return resumed(keeper, folders, lanes, count, first)

    def opened(step: int, row: Mapping[str, list], owed: list) -> Journal:
        return Journal(
            folders,
            resume_step=step,
            row=row,
            steps=steps,
            tensorboard=config["tensorboard"],
            configs=[trial.config for trial in chunk.trials],
            params=lanes.state.params,
            settings=settings,
            watch=watch,
            action="skip" if skips(config) else "record",
            ahead=rewinds.ahead,
            owed=owed,
            hold=rewinds.active,
        )

    step, state, meta = restored()
    before = meta["seconds"]
    for order, position in zip(orders, meta["orders"], strict=True) if step else ():
        order.set_state(position)
    journal = opened(step, meta["row"], rewinds.begin(step, meta))

    def seconds() -> float:
        return before + time.monotonic() - started

    share = Share(lanes.place.batches, 1, config["batch"])
    feed = Feed(dataset.train, orders, lanes.most, share)
    held_out = HeldOut(dataset, config["evaluate"], lanes.place.held_out)
    pace, accord = Pace(lanes.most), Accord(stop, alone=mates.alone)
    try:
        while step < steps:
            block = feed.take(pace.part(steps_until_due(config, step)), accord.within)
            step += block.steps
            logging = step == steps or step % config["log_every"] == 0
            record: dict[str, jax.Array] = {}
            for tier in due(settings, step, logging):
                state, found = lanes.probes[tier](
                    state, _first(lanes, share, block), which, hypers
                )
                record |= found
            seen = None
            if not (settings["free"] and logging):
                state, seen = _train(lanes, share, state, block, logging, which, hypers)
            saving = step == steps or _every(step, period)
            if rewinds.active and (
                spike := rewinds.found(state, seen, now=saving or block.stopped)
            ):
                keeper.wait()  # first: it syncs what the journal has written
                journal.close()
                step, state, meta = restored()
                journal = opened(step, meta["row"], rewinds.back(spike, step, meta))
                continue
            evaluated: list[dict[str, jax.Array]] = []
            if step == steps or _every(step, config["evaluate"]["every"]):
                evaluated = [lanes.evaluate(state, b) for b in held_out.blocks()]
            left = None
            if logging or evaluated or record:
                if seen is None:
                    state, left = observe(state, evaluated, record, logging=logging)
                else:
                    left = left_by(seen, evaluated, record, logging=logging)
            journal.note(step, left)
            pace.sent(block.steps, seen)
            stopping = block.stopped
            if step < steps and not stopping:
                stopping, pace.short = accord.next(pace.short)
            if saving or (stopping and not rewinds.active):
                journal.flush()
                journal.release()
                about = {
                    "orders": [order.get_state() for order in orders],
                    "seconds": seconds(),
                    "row": journal.row,
                    "metrics": journal.positions(),
                    **rewinds.meta(journal.owed),
                }
                keeper.save(step, first_lanes(state, count), about, before=journal.sync)
                rewinds.saved(step, journal.owed)
            if stopping:
                raise Interrupted(f"stopped at step {step} of {steps}")
    except Interrupted:
        raise
    except BaseException:
        keeper.give_up()  # others may never write their part
        raise
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


def _first(lanes: Lanes, share: Share, block: Block) -> Mapping[str, Any]:
    """The batches of a block's first step, as a program takes them."""
    if share.rows is None:
        return block.first()
    return share.put(block.first(), lanes.place.batches, 1)


def _train(
    lanes: Lanes,
    share: Share,
    state: TrainState,
    block: Block,
    logging: bool,
    which: jax.Array,
    hypers: Mapping[str, jax.Array],
) -> tuple[TrainState, Seen | None]:
    """The steps of a block; what a loop leaves to be read is taken off its state."""
    if lanes.most == 1:
        return lanes.step(state, _first(lanes, share, block), which, hypers), None
    batches = share.put(block.batches, lanes.place.blocks, 2)
    count, reading = np.int32(block.steps), np.bool_(logging)
    return lanes.steps(state, batches, count, reading, which, hypers)
