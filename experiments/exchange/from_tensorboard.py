"""TensorBoard folders as rows of steps.

By hand, as TensorBoard itself would be one more package: a record is a length, a sum,
the message and its sum, and tensorboardX, which is there, knows the messages.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnomon.experiments.exchange.formats import Cells

EVENTS = "*tfevents*"
_HEAD, _TAIL = 12, 4  # bytes before a message and after it


def has_events(folder: Path) -> bool:
    """Whether there are events in a folder or below it."""
    return next(folder.rglob(EVENTS), None) is not None


def read_events(folder: Path) -> Cells:
    """The scalars of all runs below a folder.

    Args:
      folder: each folder below it that holds events is a run.

    Returns:
      ``id`` (the run's folder), ``folder`` (the first part of it), ``step``,
      ``seconds`` (since the run's first event), and a column for each tag. What a
      resumed run wrote again counts once, as TensorBoard shows it.
    """
    rows: list[dict[str, Any]] = []
    for place in sorted({path.parent for path in folder.rglob(EVENTS)}):
        name = place.relative_to(folder)
        first = name.parts[0] if name.parts else folder.resolve().name
        run = {"id": str(name) if name.parts else first, "folder": first}
        rows += [run | row for row in _rows(place)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _rows(place: Path) -> list[dict[str, Any]]:
    """A run's steps, each with the scalars that were written there."""
    steps: dict[int, dict[str, Any]] = {}
    began = None
    for path in sorted(place.glob(EVENTS)):
        for event in _messages(path):
            began = event.wall_time if began is None else began
            if event.HasField("session_log"):
                # A resumed run says from which step on earlier events are void.
                steps = {at: row for at, row in steps.items() if at < event.step}
            for value in event.summary.value:
                number = _scalar(value)
                if number is not None:
                    row = steps.setdefault(event.step, {"step": event.step})
                    row["seconds"] = event.wall_time - began
                    row[value.tag] = number
    return [steps[at] for at in sorted(steps)]


def _messages(path: Path) -> Iterator[Any]:
    from tensorboardX.proto.event_pb2 import Event

    content = memoryview(path.read_bytes())
    at = 0
    while at + _HEAD <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        end = at + _HEAD + length
        if end + _TAIL > len(content):
            return  # cut off by a kill, or still being written
        event = Event()
        event.ParseFromString(bytes(content[at + _HEAD : end]))
        yield event
        at = end + _TAIL


def _scalar(value: Any) -> float | None:
    """The number of a summary, as TensorFlow 1 or 2 writes it, None for any other."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor":
        return None
    tensor = value.tensor
    for numbers in (tensor.float_val, tensor.double_val):
        if len(numbers) == 1:
            return float(numbers[0])
    form = {1: "<f", 2: "<d"}.get(tensor.dtype)
    if form and len(tensor.tensor_content) == struct.calcsize(form):
        return float(struct.unpack(form, tensor.tensor_content)[0])
    return None
