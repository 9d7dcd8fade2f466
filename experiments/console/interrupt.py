"""Turns Ctrl-C and SIGTERM into a stop at the next step boundary."""

import signal
from types import TracebackType


class Interrupted(Exception):
    """A run stopped on request; its checkpoint is written, and a rerun goes on."""


class Interruption:
    """While entered, the first SIGINT or SIGTERM sets ``requested``.

    A second one has the usual effect, so that a run stuck in a long step can still
    be ended from the keyboard.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM):
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
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
