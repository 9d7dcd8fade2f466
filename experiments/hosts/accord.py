"""What the processes of a run agree on between two dispatches."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


class Accord:
    """When to stop, and how many steps to take at once: the same in every process.

    Each process tells what it would do, a maximum over all is queued behind the
    dispatch, and what came out of the one before is read. So the devices never wait,
    and a request to stop is heard a dispatch late.

    Args:
      stop: whether this process is asked to stop.
      alone: whether there is no other process, and so nothing to agree on.
    """

    def __init__(self, stop: Callable[[], bool], *, alone: bool) -> None:
        self._stop, self._alone = stop, alone
        self._told: jax.Array | None = None
        if alone:
            return
        devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
        grid = np.array(devices).reshape(jax.process_count(), -1)
        mesh = jax.sharding.Mesh(grid, ("process", "device"))
        self._apart = NamedSharding(mesh, P("process"))
        self._largest = jax.jit(
            lambda told: told.max(0), out_shardings=NamedSharding(mesh, P())
        )

    def within(self) -> bool:
        """Whether to stop between the steps of a dispatch: others would not know."""
        return self._alone and self._stop()

    def next(self, short: int) -> tuple[bool, int]:
        """Says after a dispatch what to do next.

        Args:
          short: how many steps this process would take at once.

        Returns:
          Whether to stop here, and how many steps to take at once.
        """
        if self._alone:
            return self._stop(), short
        mine = np.array([[self._stop(), -short]], np.int32)
        before, self._told = (
            self._told,
            self._largest(jax.make_array_from_process_local_data(self._apart, mine)),
        )
        if before is None:
            return False, 1
        stop, fewest = np.asarray(before).tolist()
        return bool(stop), -fewest
