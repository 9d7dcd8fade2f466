"""Turns Ctrl-C and SIGTERM into a stop at the next step boundary."""

import signal
from collections.abc import Sequence
from types import TracebackType


class Interrupted(Exception):
    """A run stopped on request; its checkpoint is written, and a rerun goes on."""


class Interruption:
    """While entered, the first SIGINT or SIGTERM sets ``requested``.

    A second one has the usual effect, so that a run stuck in a long step can still
    be ended from the keyboard.

    Args:
      others: further signals that do so.

    Attributes:
      requested: whether to stop.
      number: the signal that asked for it.
    """

    def __init__(self, others: Sequence[int] = ()) -> None:
        self.requested = False
        self.number: int | None = None
        self._numbers = (signal.SIGINT, signal.SIGTERM, *others)
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        for number in self._numbers:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: object) -> None:
        self.requested, self.number = True, number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
