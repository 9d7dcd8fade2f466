"""Metrics of one run: a JSON object a line, and TensorBoard beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gnomon.experiments.files import PathLike, from_json, jsonable, write_text

FILE = "metrics.jsonl"
_EVENTS = "events.out.tfevents.*"


class MetricsWriter:
    """Appends rows to `metrics.jsonl`, and goes on where a killed run left off.

    A row is written in one call to the system and is then safe from `kill -9`; a
    kill inside that call can tear the last line and no other. When a run resumes from
    a checkpoint, the rows after the checkpoint are dropped, for they will be written
    again: the file of a run that was killed equals that of one that was not.

    Args:
      folder: The run's folder; created when missing.
      resume_step: The step of the checkpoint that the run goes on from. `None`, the
        default, starts anew: what an earlier run left in the folder is dropped.
      tensorboard: Whether to write TensorBoard events too (by tensorboardX). The
        events of dropped rows are hidden by TensorBoard's own purge.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with MetricsWriter(folder, tensorboard=False) as writer:
      ...     writer.write(10, {"train_loss": 2.5})
      ...     writer.write(20, {"train_loss": float("nan")})
      >>> print(Path(folder, "metrics.jsonl").read_text(), end="")
      {"step": 10, "train_loss": 2.5}
      {"step": 20, "train_loss": "NaN"}
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        resume_step: int | None = None,
        tensorboard: bool = True,
    ):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / FILE
        if path.exists():
            _drop_after(path, resume_step)
        self._events = self._open_events(resume_step) if tensorboard else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor: int | None = os.open(path, flags, 0o666)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one row.

        Args:
          step: The number of steps taken.
          values: Numbers by name, as Python, NumPy or JAX scalars; non-finite ones
            are written as ``"NaN"``, ``"Infinity"``, ``"-Infinity"``. Other JSON values
            are kept from TensorBoard.

        Raises:
          ValueError: If the writer is closed.
        """
        if self._descriptor is None:
            raise ValueError(f"the metrics of {self._folder} are closed")
        row = jsonable({"step": step, **values})
        line = json.dumps(row, allow_nan=False) + "\n"
        os.write(self._descriptor, line.encode())
        if self._events is not None:
            for name, value in from_json(row).items():
                # TensorBoard marks a number that is not finite, or is not there.
                number = float("nan") if value is None else value
                if name != "step" and isinstance(number, int | float):
                    self._events.add_scalar(name, number, step)

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_events(self, resume_step: int | None) -> Any:
        # Here, so that a sweep without TensorBoard does not pay for the import.
        from tensorboardX import SummaryWriter

        if resume_step is None:
            for stale in self._folder.glob(_EVENTS):
                stale.unlink()
            return SummaryWriter(os.fspath(self._folder))
        return SummaryWriter(os.fspath(self._folder), purge_step=resume_step + 1)


def read_metrics(path: PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a `metrics.jsonl`, without a torn last line.

    Args:
      path: The file, or the folder that holds it.

    Returns:
      The rows in the order of writing. A line is a row once its newline is there.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If another line than the last is broken. The message names it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(from_json(json.loads(line)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    return rows


def _drop_after(path: Path, step: int | None) -> None:
    rows = [] if step is None else read_metrics(path)
    kept = [row for row in rows if step is not None and row["step"] <= step]
    text = "".join(json.dumps(jsonable(row)) + "\n" for row in kept)
    # Syncing a file costs as much as many steps of a small model: only when needed.
    if text.encode() != path.read_bytes():
        write_text(path, text)
