"""Short texts that processes of one run leave for each other."""

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import jax

# By its private name, as other packages do: jax offers the store of its coordination
# service under no other, and a collective of devices, which is public, must not run in
# one thread beside the training in another.
from jax._src import distributed

SLICE = 1000  # milliseconds of waiting, between two looks at whether to go on waiting


class Gone(Exception):
    """A wait for another process that was given up."""


class Board(Protocol):
    """Where texts are left; a test has one of its own."""

    def post(self, key: str, text: str) -> None:
        """Leaves a text, once for a key."""

    def read(self, key: str, given_up: Callable[[], bool] = lambda: False) -> str:
        """Waits for a text; raises `Gone` when it is given up."""

    def look(self, key: str) -> str | None:
        """A text if it is there."""


class Service:
    """The board of processes that `jax.distributed.initialize` has joined.

    It lives in process 0, and ends with it.
    """

    def post(self, key: str, text: str) -> None:
        """Leaves a text, once for a key."""
        _client().key_value_set(f"gnomon/{key}", text)

    def read(self, key: str, given_up: Callable[[], bool] = lambda: False) -> str:
        """Waits for a text; raises `Gone` when it is given up."""
        while not given_up():
            try:
                return _client().blocking_key_value_get(f"gnomon/{key}", SLICE)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        raise Gone(key)

    def look(self, key: str) -> str | None:
        """A text if it is there."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            return _client().key_value_try_get(f"gnomon/{key}")
        return None


def place() -> tuple[int, int]:
    """Which process this is, and of how many, without a look at the devices."""
    state = distributed.global_state
    return state.process_id, state.num_processes


def _client() -> Any:
    return distributed.global_state.client
