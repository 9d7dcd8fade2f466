"""Runs a console command, its expected errors as one line."""

import sys
from collections.abc import Callable

from absl import app


def run(main: Callable[[], None], *expected: type[Exception]) -> None:
    """Runs a command whose flags are defined; it takes no other arguments.

    Args:
      main: the command.
      *expected: errors that end it with one line on standard error and exit status 2;
        any other is a fault and shows its trace.
    """

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {argv[1:]}")
        try:
            main()
        except expected as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)
