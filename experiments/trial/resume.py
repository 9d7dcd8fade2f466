"""Where a chunk goes on: its newest good checkpoint, or its start."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging as log

from gnomon.experiments.records.metrics import Position, missing_rows
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.lanes import Lanes
from gnomon.experiments.trial.mesh import HOST
from gnomon.experiments.trial.step import TrainState

START: dict[str, Any] = {"seconds": 0.0, "row": {}}


def resumed(
    keeper: Checkpoints,
    folders: Sequence[Path | None],
    lanes: Lanes,
    count: int,
    init: Callable[[], TrainState],
) -> tuple[int, TrainState, Mapping[str, Any]]:
    """The step and state to go on from, and what was saved beside them.

    Args:
      keeper: the chunk's checkpoints.
      folders: each trial's folder; None for one whose files stay as they are.
      lanes: the chunk's compiled program.
      count: how many lanes are trials.
      init: makes the state before the first step.
    """

    def lost(meta: Mapping[str, Any]) -> str | None:
        for folder, written in zip(folders, meta["metrics"], strict=True):
            if folder is None or written is None:
                continue
            if problem := missing_rows(folder, Position(*written)):
                return problem
        return None

    keeper.clean()
    restored = keeper.restore(
        first_lanes(lanes.state, count), refuse=lost, optional=("probes",)
    )
    if restored is None:
        if keeper.notes:
            log.warning("training starts anew, from step 0")
        return 0, init(), START
    step, state, meta = restored
    if has_holes(state.probes):
        # Probes were turned on or off since: what they carry begins as at step 0.
        state = state._replace(probes=first_lanes(init(), count).probes)
    return step, _pad_lanes(state, count, lanes.state), meta


def has_holes(tree: Any) -> bool:
    """Whether leaves are shapes alone: a checkpoint did not hold them."""
    leaves = jax.tree.leaves(tree)
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def first_lanes(state: TrainState, count: int) -> TrainState:
    """The state of the real lanes: what is saved fits any number of devices."""

    def first(leaf: Any) -> Any:
        if leaf.shape[0] == count:
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype)
        if leaf.sharding.memory_kind == HOST:  # nothing is computed there
            leaf = jax.device_put(leaf, jax.memory.Space.Device)
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
