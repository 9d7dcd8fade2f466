"""Which examples of a batch this process needs, and arrays made of its part."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding


class Share:
    """The part of a batch that lies on the devices of this process.

    A process has the same examples of a batch as long as it runs. Where all devices are
    its own it has all of them, and arrays go to the devices as they are.

    Args:
      sharding: of arrays that have the examples along ``axis``.
      axis: which axis that is.
      size: how many examples a batch has.

    Attributes:
      rows: the examples it needs, in order; None for all.
    """

    def __init__(self, sharding: NamedSharding, axis: int, size: int) -> None:
        self._size = size
        self.rows: np.ndarray | None = None
        if not sharding.is_fully_addressable:
            shape = (*[1] * axis, size)
            places = sharding.addressable_devices_indices_map(shape).values()
            mine = [np.arange(size)[place[axis]] for place in places if place]
            self.rows = np.unique(np.concatenate(mine))

    def of(self, index: np.ndarray) -> np.ndarray:
        """This process's part of the examples of a batch, along the last axis."""
        return index if self.rows is None else index[..., self.rows]

    def put(
        self, arrays: Mapping[str, np.ndarray], sharding: NamedSharding, axis: int
    ) -> dict[str, jax.Array]:
        """Puts this process's part of arrays where a sharding says that they lie.

        Args:
          arrays: with the examples of its part along ``axis``.
          sharding: how the whole arrays lie.
          axis: which axis that is.
        """
        if self.rows is None:
            return jax.device_put(dict(arrays), sharding)
        return {name: self._put(x, sharding, axis) for name, x in arrays.items()}

    def _put(self, part: np.ndarray, sharding: NamedSharding, axis: int) -> jax.Array:
        shape = (*part.shape[:axis], self._size, *part.shape[axis + 1 :])

        def of_device(place: Any) -> np.ndarray:
            start, stop, _ = place[axis].indices(self._size)
            assert self.rows is not None
            first = int(np.searchsorted(self.rows, start))
            here = slice(first, first + stop - start)
            return part[(*place[:axis], here, *place[axis + 1 :])]

        return jax.make_array_from_callback(shape, sharding, of_device)
