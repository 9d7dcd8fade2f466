"""The processes of a run: which one this is, and what all of them do together."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax

from gnomon.experiments.console.errors import UserError, explain
from gnomon.experiments.hosts.board import Board, Service


class Agreed(UserError):
    """A refusal that ends every process of a run, each with this line."""


class Crew:
    """The processes of a run, as one of them sees them.

    A run of one process is a crew of one, which waits for nobody.

    Args:
      index: which process this is; process 0 is the one that writes.
      count: how many there are.
      board: where they leave texts for each other.

    Example:
      >>> crew = Crew()
      >>> crew.writes, crew.together(lambda: "ready"), crew.told(lambda: [1, 2])
      (True, ['ready'], [1, 2])
    """

    def __init__(
        self, index: int = 0, count: int = 1, board: Board | None = None
    ) -> None:
        self.index, self.count = index, count
        self.board: Board = Service() if board is None else board
        self.meetings = 0

    @property
    def alone(self) -> bool:
        """Whether the run is of one process."""
        return self.count == 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes the run's files, and speaks."""
        return self.index == 0

    def owns(self, shard: Any) -> bool:
        """Whether a shard of an array is this process's to store."""
        return shard.replica_id == 0

    def together(self, function: Callable[[], str]) -> list[str]:
        """Calls a function in every process; what is refused in one, all refuse.

        Every process must come here, and in the same order.

        Args:
          function: returns a text for all to know.

        Returns:
          The texts of all processes.

        Raises:
          Agreed: it raised, in some process, what a person can cause.
        """
        if self.alone:
            return [function()]
        self.meetings += 1
        key, refusal = f"meeting/{self.meetings}", None
        try:
            said = function()
        except Exception as error:
            refusal = explain(error)
            if refusal is None:
                raise
        mine = ["refused", refusal] if refusal is not None else ["said", said]
        self.board.post(f"{key}/{self.index}", json.dumps(mine))
        found = [
            json.loads(self.board.read(f"{key}/{index}")) for index in range(self.count)
        ]
        if refusal is not None:
            raise Agreed(refusal)
        for index, (kind, text) in enumerate(found):
            if kind == "refused":
                raise Agreed(f"process {index}: {text}")
        return [text for _, text in found]

    def told(self, function: Callable[[], Any]) -> Any:
        """Calls a function in process 0; all get what it returns, in JSON's types."""
        if self.alone:
            return function()
        first = self.together(lambda: json.dumps(function()) if self.writes else "")[0]
        return json.loads(first)

    def same(self, what: str, function: Callable[[], str]) -> None:
        """Refuses what is not the same in every process.

        Args:
          what: what it is, for the message.
          function: says it in this process.
        """
        first, *others = self.together(function)
        for index, other in enumerate(others, 1):
            if other != first:
                raise Agreed(
                    f"process {index} has another {what} than process 0: {other}, not"
                    f" {first}; run the same command, on the same files, in every"
                    " process"
                )


@functools.cache  # it counts its meetings
def crew() -> Crew:
    """The processes that jax knows of."""
    return Crew(jax.process_index(), jax.process_count())
