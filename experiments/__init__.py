"""Configs, data, training, sweeps and reports: the room that reads and writes.

* ``python -m gnomon.experiments.train``: one config.
* ``python -m gnomon.experiments.sweep``: a config's grid, then its report.
* ``python -m gnomon.experiments.report``: the report of a sweep's folder.
* ``python -m gnomon.experiments.cockpit``: what the probes of a run saw, on a page.
* ``python -m gnomon.experiments.data``: prepares data sets ahead of time.
"""

import os
import sys
from types import TracebackType


def _starting() -> bool:
    """Whether this is imported to run one of its commands."""
    name = os.path.basename((sys.argv or [""])[0])
    return name == "-m" or name.startswith("gnomon-")


def _say(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Ends a command whose modules cannot be loaded, or that is stopped meanwhile."""
    from gnomon.experiments.console.errors import missing

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


if _starting():
    sys.excepthook = _say
