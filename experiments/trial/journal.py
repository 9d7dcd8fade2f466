"""The rows of metrics of a chunk, read while its next steps run.

What a dispatch leaves to be logged stays on the device; its copy to the host begins at
once, and is waited for only when the dispatch after it is under way.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.dynamics.layers import layers_of
from gnomon.experiments.records.metrics import MetricsWriter, Position
from gnomon.experiments.trial.abstract import of_one_lane
from gnomon.experiments.trial.dispatch import Seen
from gnomon.experiments.trial.probes import columns
from gnomon.experiments.trial.spikes import emptied, records, told
from gnomon.experiments.trial.step import NEVER, TrainState


class Tick(NamedTuple):
    """What a run tells whoever watches it, after each dispatch.

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


class Observation(NamedTuple):
    """What one step leaves to be logged, all of it by lane, on the device.

    Attributes:
      window: sums of the metrics since they were last read; empty where the step does
        not log.
      evaluated: the metrics of validation batches, by lane and batch.
      record: what the probes found.
      diverged_at: as of the state.
      spikes: those since a row was last written; empty where the step does not log.
    """

    window: Mapping[str, jax.Array]
    evaluated: Sequence[Mapping[str, jax.Array]]
    record: Mapping[str, jax.Array]
    diverged_at: jax.Array
    spikes: Mapping[str, jax.Array]


def observe(
    state: TrainState,
    evaluated: Sequence[Mapping[str, jax.Array]],
    record: Mapping[str, jax.Array],
    *,
    logging: bool,
) -> tuple[TrainState, Observation]:
    """Takes what is to be logged off a state; returns one that can be donated."""
    # The next step consumes the state: what is read after it must be a copy.
    copied = jax.tree.map(jnp.copy, (state.diverged_at, told(state.spikes)))
    seen = Seen(state.window, *copied)
    if logging:
        state = state._replace(
            window=jax.tree.map(jnp.zeros_like, state.window),
            spikes=emptied(state.spikes),
        )
    return state, left_by(seen, evaluated, record, logging=logging)


def left_by(
    seen: Seen,
    evaluated: Sequence[Mapping[str, jax.Array]],
    record: Mapping[str, jax.Array],
    *,
    logging: bool,
) -> Observation:
    """What is to be logged of a dispatch; its copy to the host has begun."""
    window, spikes = (seen.window, seen.spikes) if logging else ({}, {})
    found = Observation(window, evaluated, record, seen.diverged_at, spikes)
    for leaf in jax.tree.leaves(found):
        leaf.copy_to_host_async()
    return found


def means_of(found: Observation) -> dict[str, np.ndarray]:
    """The means of an observation's metrics, training's and validation's, by lane.

    NaN where a lane has taken none of its steps.
    """
    sums = dict(jax.device_get(found.window))
    steps = np.asarray(sums.pop("count", 1.0))
    steps = np.where(steps == 0, np.nan, steps)
    means = {
        name if name == "learning_rate" else f"train_{name}": total / steps
        for name, total in sums.items()
    }
    return means | _over_batches(jax.device_get(found.evaluated))


def _over_batches(
    evaluated: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Means of arrays [lanes, batches], each batch by its ``count`` if it has one."""
    totals: dict[str, np.ndarray] = {}
    counted: Any = 0.0
    for metrics in evaluated:
        counts = np.ones(np.shape(metrics["loss"]))
        counts = np.asarray(metrics.get("count", counts), np.float64)
        for name, values in metrics.items():
            if name != "count":
                terms = np.asarray(values, np.float64) * counts
                for column in terms.T:
                    totals[name] = totals.get(name, 0.0) + column
        for column in counts.T:
            counted = counted + column
    # No term at all: a mean of zeros, as a batch without any has it.
    return {f"validation_{n}": x / np.maximum(counted, 1) for n, x in totals.items()}


class Journal:
    """Writes the rows of a chunk's trials, each once the next steps are under way.

    Args:
      folders: each trial's folder; None for one whose files stay as they are.
      resume_step: the step that the chunk goes on from.
      row: the last value of each metric, by lane, at that step.
      steps: steps in all.
      tensorboard: whether to write TensorBoard events too.
      configs: each trial's config, whose ``writers`` rows are sent to as well.
      params: the abstract parameters, by lane, whose layers the names of probes and
        spikes tell.
      settings: of the probes.
      watch: called after each dispatch, with its losses once they are read.
      action: what is done about the spikes that it is told of.
      ahead: how many batches the order of the data has jumped over.
      owed: records of spikes that the next row is to have, of a run that went back.
      hold: whether trackers are sent no row before `release`.

    Attributes:
      row: the last value of each metric, by lane, as far as it is read.
      owed: records of spikes that no row has yet.
    """

    def __init__(
        self,
        folders: Sequence[Path | None],
        *,
        resume_step: int,
        row: Mapping[str, list],
        steps: int,
        tensorboard: bool,
        configs: Sequence[Mapping[str, Any]],
        params: Any,
        settings: Mapping[str, Any],
        watch: Callable[[Tick], None],
        action: str = "record",
        ahead: int = 0,
        owed: Sequence[dict[str, Any]] = (),
        hold: bool = False,
    ) -> None:
        self.row: dict[str, list] = dict(row)
        self.owed = list(owed)
        self._action, self._ahead = action, ahead
        self._writers = [
            None
            if folder is None
            else MetricsWriter(
                folder,
                resume_step=resume_step,
                tensorboard=tensorboard,
                trackers=config.get("writers"),
                config=config,
                hold=hold,
            )
            for folder, config in zip(folders, configs, strict=True)
        ]
        self._open = [writer for writer in self._writers if writer is not None]
        self._steps, self._watch = steps, watch
        self._params, self._settings = of_one_lane(params), settings
        self._layers = layers_of(self._params).names
        self._unread: tuple[int, Observation] | None = None

    def note(self, step: int, found: Observation | None) -> None:
        """Takes what a step that is under way leaves, and reads what it had before."""
        self.flush()
        if found is None:
            self._watch(Tick(step, self._steps, len(self._writers), None))
        else:
            self._unread = step, found

    def flush(self) -> None:
        """Waits for what is not read yet, and writes it."""
        if self._unread is None:
            return
        (step, found), self._unread = self._unread, None
        seen = means_of(found)
        losses = seen.get("train_loss")
        self._watch(Tick(step, self._steps, len(self._writers), losses))
        silent = self._silent(found, seen)
        for name, values in seen.items():
            before = self.row.get(name, [None] * len(values))
            self.row[name] = [
                before[lane] if (name, lane) in silent else value
                for lane, value in enumerate(values.tolist())
            ]
        found = found._replace(spikes=jax.device_get(dict(found.spikes)))
        if found.record:
            seen |= columns(found.record, self._params, self._settings)
        diverged_at = np.asarray(found.diverged_at)
        for lane, writer in enumerate(self._writers):
            if writer is not None:
                row: dict[str, Any] = {
                    name: float(values[lane])
                    for name, values in seen.items()
                    if (name, lane) not in silent
                }
                if diverged_at[lane] != NEVER:
                    row["diverged_at"] = int(diverged_at[lane])
                if found.window and (spikes := self._spikes(found, lane)):
                    row["spikes"] = spikes
                writer.write(step, row)

    def _silent(
        self, found: Observation, seen: Mapping[str, np.ndarray]
    ) -> set[tuple[str, int]]:
        """What no row has, by name and lane: means over steps that were all skipped."""
        counts = np.asarray(found.window.get("count", ()))
        lanes = np.flatnonzero(counts == 0).tolist()
        trained = [name for name in seen if not name.startswith("validation_")]
        return {(name, lane) for name in trained for lane in lanes}

    def _spikes(self, found: Observation, lane: int) -> list[dict[str, Any]]:
        owed, self.owed = self.owed, []
        if not found.spikes:
            return owed
        own = {name: np.asarray(x[lane]) for name, x in found.spikes.items()}
        if not int(own["count"]):
            return owed
        return [*owed, *records(own, self._layers, self._action, self._ahead)]

    def positions(self) -> list[Position | None]:
        """How far each trial's file is written."""
        return [None if w is None else w.position for w in self._writers]

    def release(self) -> None:
        """Sends trackers what was held back: the run does not go back behind it."""
        for writer in self._open:
            writer.release()

    def sync(self) -> None:
        """Brings the written rows to the disk."""
        for writer in self._open:
            writer.sync()

    def close(self) -> None:
        """Closes the files, without what is not read yet."""
        for writer in self._open:
            writer.close()
