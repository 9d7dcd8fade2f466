"""Going back from a spike: to the last checkpoint, and past the batches since.

The rerun of a run that was killed after it went back meets the same spike from the same
checkpoint, and goes back again: nothing but checkpoints has to be kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.dynamics.layers import layers_of
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.spikes import rewinds, spikes_in
from gnomon.experiments.data.order import Order
from gnomon.experiments.trial.dispatch import Seen
from gnomon.experiments.trial.spikes import NONE, records, told
from gnomon.experiments.trial.step import TrainState

Peek = Mapping[str, jax.Array]
"""What `gnomon.experiments.trial.spikes.told` gave of a dispatch, by lane."""


class Rewinds:
    """The rewinds of a run: what it goes back to, from where, and how often.

    Args:
      config: of its trial.
      orders: of its data.
      lanes: how many trials run side by side; one, if it is to go back.
      params: the abstract parameters, whose layers records name.

    Raises:
      ConfigError: trials that rewind run side by side.

    Attributes:
      active: whether the next spike sends it back.
      count: how often it went back.
    """

    def __init__(
        self,
        config: Mapping,
        orders: Sequence[Order],
        lanes: int,
        params: Any,
    ) -> None:
        on = rewinds(config)
        if on and lanes != 1:
            raise ConfigError(
                "config.spikes.action='rewind': its order is its own; run one trial"
                " at a time"
            )
        self._most = (spikes_in(config) or {})["rewinds"] if on else 0
        self._orders, self._names = orders, layers_of(params).names
        self.count = 0
        self._owed: list[dict[str, Any]] = []
        self._peek: Peek | None = None

    @property
    def active(self) -> bool:
        """Whether the next spike sends the run back."""
        return self.count < self._most

    @property
    def ahead(self) -> int:
        """How many batches the order has jumped over."""
        return self._starts[0]["next_batch"] - self._step if self._most else 0

    def begin(self, step: int, meta: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Takes note of the step and the orders that a run goes on from.

        Args:
          step: steps taken.
          meta: what was saved beside them.

        Returns:
          The records that the run's next row is to have.
        """
        saved = meta.get("rewinds") or {"count": 0, "owed": []}
        self.count = saved["count"]
        self.saved(step, saved["owed"])
        return self._owed

    def saved(self, step: int, owed: Sequence[dict[str, Any]]) -> None:
        """Takes note of a checkpoint, and of the records that no row has yet."""
        self._step, self._owed, self._peek = step, list(owed), None
        self._starts = [order.get_state() for order in self._orders]

    def meta(self, owed: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What a checkpoint says; nothing of a run that does not go back."""
        if not self._most:
            return {}
        return {"rewinds": {"count": self.count, "owed": list(owed)}}

    def found(self, state: TrainState, seen: Seen | None, *, now: bool) -> Peek | None:
        """The spike of a dispatch that has ended: of the one before, or also of this.

        Args:
          state: after the dispatch, which may still run.
          seen: what it leaves to be read, if it says.
          now: whether to wait for it.
        """
        peek = told(state.spikes) if seen is None else seen.spikes
        if seen is None:  # the next dispatch consumes the state
            peek = jax.tree.map(jnp.copy, peek)
        for leaf in jax.tree.leaves(peek):
            leaf.copy_to_host_async()
        ended, self._peek = self._peek, peek
        for one in (ended, peek) if now else (ended,):
            if one is not None and int(one["first"][0]) != NONE:
                return one
        return None

    def back(
        self, spike: Peek, step: int, meta: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Sets the orders behind a spike.

        Args:
          spike: of `found`.
          step: of the checkpoint that was restored.
          meta: what was saved beside it.

        Returns:
          The records that the run's next row is to have.
        """
        if step != self._step:  # the newest is damaged: the way there is gone again
            for order, start in zip(self._orders, self._starts, strict=True):
                zero = {**start, "next_batch": 0}
                order.set_state(meta["orders"][0] if step else zero)
            return self.begin(step, meta)
        own = {name: np.asarray(values[0]) for name, values in spike.items()}
        at = int(own["first"])
        every = records(own, self._names, "rewind", self.ahead)
        event = next(record for record in every if record["step"] == at)
        for order, start in zip(self._orders, self._starts, strict=True):
            jumped = start["next_batch"] + at - step + 1
            order.set_state({**start, "next_batch": jumped})
        self.count += 1
        self.saved(step, [*self._owed, event | {"back_to": step}])
        return self._owed
