"""How a command ends whose modules cannot be loaded, or that is stopped meanwhile.

It is imported before anything that may be missing, and imports nothing of it.
"""

import os
import sys
from types import TracebackType

from gnomon.experiments.console.errors import missing


def starting() -> bool:
    """Whether gnomon is imported to run one of its commands."""
    name = os.path.basename((sys.argv or [""])[0])
    return name == "-m" or name.startswith("gnomon-")


def say(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Ends the process with one line, where one says it all; a `sys.excepthook`."""
    line, status = None, 2
    if isinstance(error, ImportError):
        line = missing(error)
    elif isinstance(error, KeyboardInterrupt):
        line, status = "stopped before anything was started", 130
    if line is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {line}" if status == 2 else line, file=sys.stderr)
    raise SystemExit(status)
