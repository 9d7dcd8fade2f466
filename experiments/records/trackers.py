"""Metrics sent to wandb or trackio too, beside the files of a run.

The files are the truth. A tracker sends what they hold; one that fails, for want of a
network say, is left out with one warning, and the run goes on.
"""

import contextlib
import contextvars
import io
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

_SIZE = 256  # bytes of the mark, in one write


class Tracker:
    """One run at one tracker.

    In the run's folder ``NAME.json`` has the run's id there and the last step that was
    sent. A run that resumes from a checkpoint writes some rows again: what was sent is
    not sent twice. The step is noted before it is sent, so a kill in between loses one
    row at the tracker, and none in the files. A run that goes back from a loss spike
    sends its rows with the checkpoint after them, behind which it does not go.

    Args:
      name: ``wandb`` or ``trackio``.
      folder: the run's folder.
      settings: keywords of the package's ``init``, such as ``project``.
      config: the run's config, shown beside its metrics.
      fresh: whether the run starts anew, under a new id.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Mapping[str, Any],
        config: Mapping[str, Any],
        fresh: bool,
    ) -> None:
        self._name = name
        self._run: Any = None
        path = folder / f"{name}.json"
        known, self._sent = (None, -1) if fresh else _read_mark(path)
        plain = re.sub(r"[^\w.-]+", "-", folder.resolve().name)
        self._id = known or f"{plain}-{uuid.uuid4().hex[:8]}"
        self._mark: int | None = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        self._note()
        given = {"project": "gnomon", "config": dict(config), **settings}

        def start() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                return STARTS[name](self._id, folder, given)

        self._run = self._tried(start)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Sends a row, unless it was sent before."""
        if self._run is None or step <= self._sent:
            return
        self._sent = step
        self._note()
        self._tried(lambda: self._run.log(dict(values), step=step))

    def close(self) -> None:
        """Waits until all is sent; a second call does nothing."""
        run, mark = self._run, self._mark
        if run is not None:

            def finish() -> None:
                with contextlib.redirect_stdout(io.StringIO()):
                    run.finish()

            self._tried(finish)
        self._run = self._mark = None
        if mark is not None:
            os.close(mark)

    def _note(self) -> None:
        if self._mark is not None:
            mark = json.dumps({"id": self._id, "step": self._sent}).ljust(_SIZE - 1)
            os.pwrite(self._mark, f"{mark}\n".encode(), 0)

    def _tried(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # whatever a network, a server or a package does
            self._run = None
            logging.warning(
                "%s: %s: %s; the run goes on without it, its files have everything",
                self._name,
                type(error).__name__,
                error,
            )
            return None


def _read_mark(path: Path) -> tuple[str | None, int]:
    """The id and the last step sent, as far as they are there."""
    try:
        found = json.loads(path.read_text())
        return str(found["id"]), int(found["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, -1


def _wandb(name: str, folder: Path, given: dict[str, Any]) -> Any:
    import wandb

    quiet = {"console": "off", "silent": True, **given.pop("settings", {})}
    given = {"name": name, "dir": os.fspath(folder), **given}
    # Trials that run side by side each have a run of their own.
    return wandb.init(
        id=name, resume="allow", reinit="create_new", settings=quiet, **given
    )


def _trackio(name: str, folder: Path, given: dict[str, Any]) -> Any:
    import trackio

    # It knows a run by its name, and would end the one that its context holds.
    given = {"auto_log_cpu": False, "auto_log_gpu": False, "embed": False, **given}
    start = contextvars.Context().run
    return start(trackio.init, name=name, resume="allow", **given)


STARTS: Mapping[str, Callable[[str, Path, dict[str, Any]], Any]] = {
    "wandb": _wandb,
    "trackio": _trackio,
}
