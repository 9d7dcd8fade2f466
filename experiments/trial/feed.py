"""The batches of a run, gathered and sent to where its programs want them.

What is gathered while a dispatch runs is there when the next one begins. Each process
of a run gathers the examples that its own devices need.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from gnomon.experiments.data import Dataset, Examples
from gnomon.experiments.data.order import Order
from gnomon.experiments.trial.dispatch import BLOCK_BYTES
from gnomon.experiments.trial.shares import Share


class Block(NamedTuple):
    """The batches of a dispatch.

    Attributes:
      batches: by name, [most, seeds, batch, ...], of the batch this process's part;
        zeros behind the last step.
      steps: how many it has.
      stopped: whether it ends where it does because somebody asked to stop.
    """

    batches: dict[str, np.ndarray]
    steps: int
    stopped: bool

    def first(self) -> dict[str, np.ndarray]:
        """The batches of its first step."""
        return {name: array[0] for name, array in self.batches.items()}


class Feed:
    """Training batches, in the orders of their seeds.

    Args:
      examples: the training examples.
      orders: of each distinct seed.
      most: how many steps a dispatch may have.
      share: the part of a batch to gather.
    """

    def __init__(
        self,
        examples: Mapping[str, Examples],
        orders: Sequence[Order],
        most: int,
        share: Share,
    ) -> None:
        self._examples, self._orders, self._most = examples, orders, most
        self._share = share

    def take(self, count: int, stop: Callable[[], bool]) -> Block:
        """Gathers the batches of the next steps.

        Args:
          count: how many.
          stop: asked between two steps; when true, they end there.
        """
        batches: dict[str, np.ndarray] = {}
        for at in range(count):
            for lane, order in enumerate(self._orders):
                index = self._share.of(order.next())
                for name, array in self._examples.items():
                    if name not in batches:
                        sizes = self._most, len(self._orders), len(index)
                        batches[name] = np.zeros(
                            (*sizes, *array.shape[1:]), array.dtype
                        )
                    batches[name][at, lane] = array[index]
            if at + 1 < count and stop():
                return Block(batches, at + 1, True)
        return Block(batches, count, False)


class HeldOut:
    """A fixed set of validation batches, by the dispatches that evaluate them.

    The examples are spread evenly over the split and are the same at every step and
    for every trial, so that differences between trials are not differences of data.
    What fits in `BLOCK_BYTES` is sent once.

    Args:
      dataset: the data.
      settings: how many batches, ``batches``, of how many examples, ``batch``.
      sharding: of what is sent, [batches, batch, ...].
    """

    def __init__(
        self, dataset: Dataset, settings: Mapping[str, int], sharding: NamedSharding
    ) -> None:
        self._examples, self._sharding = dataset.validation, sharding
        self._share = Share(sharding, 1, settings["batch"])
        available = len(next(iter(self._examples.values())))
        batches = max(1, min(settings["batches"], available // settings["batch"]))
        count = batches * settings["batch"]
        chosen = np.linspace(0, available - 1, count).astype(int)
        example = sum(
            int(np.prod(array.shape[1:])) * np.dtype(array.dtype).itemsize
            for array in self._examples.values()
        )
        # Of one length all, so that one program does.
        most = max(1, BLOCK_BYTES // max(1, example * settings["batch"]))
        length = max(n for n in range(1, batches + 1) if batches % n == 0 and n <= most)
        self._indices = chosen.reshape(-1, length, settings["batch"])
        self._kept: list[dict[str, jax.Array]] = []

    def blocks(self) -> list[dict[str, jax.Array]] | map:
        """The batches, by name [batches, batch, ...], of each dispatch."""
        if len(self._indices) > 1:
            return map(self._block, self._indices)
        if not self._kept:
            self._kept = [self._block(self._indices[0])]
        return self._kept

    def _block(self, index: np.ndarray) -> dict[str, jax.Array]:
        index = self._share.of(index)
        found = {
            name: array[index.ravel()].reshape(*index.shape, *array.shape[1:])
            for name, array in self._examples.items()
        }
        return self._share.put(found, self._sharding, 1)
