"""Where the numbers of a report come from."""

import dataclasses
import datetime
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gnomon.experiments.console.progress import format_duration
from gnomon.experiments.records.runs import Run


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where the numbers come from.

    Attributes:
      counts: Trials ``planned``, ``finished``, ``diverged``, ``unfinished``.
      facts: Names and values to print: command, data, device, versions, time.
      notes: What a reader must know, such as that results mix devices.
      what: What is counted.
    """

    counts: Mapping[str, int]
    facts: Mapping[str, str]
    notes: Sequence[str]
    what: str = "trials"

    @property
    def done(self) -> str:
        """How far the sweep is, ``"12 of 60 trials done"``."""
        done = self.counts["finished"] + self.counts["diverged"]
        return f"{done} of {self.counts['planned']} {self.what} done"

    @property
    def complete(self) -> bool:
        """Whether every planned trial finished or diverged."""
        return self.counts["unfinished"] == 0


def select(
    runs: Sequence[Run], sweep: Mapping[str, Any]
) -> tuple[list[Run], int, Sequence[str]]:
    """The runs of the last sweep of a folder, in the sweep's order.

    Args:
      runs: every run of the folder.
      sweep: what `sweep.json` holds, {} without the file.

    Returns:
      The runs that belong to the sweep, how many were planned, and notes.
    """
    planned = sweep.get("trials")
    if not isinstance(planned, list):
        count = planned if isinstance(planned, int) else 0
        return list(runs), max(count, len(runs)), []
    order = {trial: i for i, trial in enumerate(planned)}
    chosen = sorted((r for r in runs if r.id in order), key=lambda r: order[r.id])
    left_out = len(runs) - len(chosen)
    notes = (
        [f"Left out: {left_out} trials of earlier sweeps in the same folder."]
        if left_out
        else []
    )
    return chosen, len(planned), notes


def trace(
    runs: Sequence[Run], planned: int, sweep: Mapping[str, Any], notes: Sequence[str]
) -> Provenance:
    """Collects the provenance of a report.

    Args:
      runs: from `select`.
      planned: from `select`.
      sweep: what `sweep.json` holds.
      notes: from `select`.
    """
    status = Counter(run.status for run in runs)
    results = [run.result for run in runs if run.result is not None]
    origins = [r.get("data", {}) for r in results]
    data = Counter(f"{d.get('name')}, sha256 {d.get('fingerprint')}" for d in origins)
    devices = Counter(str(r.get("device")) for r in results)
    versions = Counter(
        ", ".join(f"{k} {v}" for k, v in r.get("versions", {}).items()) for r in results
    )
    found = list(notes)
    for what, seen in (("devices", devices), ("versions", versions)):
        if len(seen) > 1:
            found.append(f"Results come from {len(seen)} different {what}.")
    names = {key.split(", sha256 ")[0] for key in data}
    if len(names) < len(data):
        found.append(
            "Trials read different versions of one data set; do not compare them."
        )
    seconds = sum(float(r.get("seconds") or 0.0) for r in results)
    counts = {
        "planned": planned,
        "finished": status["finished"],
        "diverged": status["diverged"],
        "unfinished": planned - status["finished"] - status["diverged"],
    }
    spent = f"{format_duration(seconds)} over all trials"
    facts = {
        "command": _command(sweep.get("command", "")),
        "config": str(sweep.get("config", "")),
        "trials": ", ".join(f"{count} {name}" for name, count in counts.items()),
        "data": "; ".join(data),
        "device": "; ".join(devices),
        "versions": "; ".join(versions),
        "training time": spent if seconds else "",
        "written": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    facts = {name: value for name, value in facts.items() if value}
    return Provenance(counts, facts, found)


def _command(command: str | Sequence[str]) -> str:
    """A recorded command as one can type it.

    >>> _command(["/a/experiments/sweep.py", "--workdir=my runs"])
    "python -m gnomon.experiments.sweep '--workdir=my runs'"
    """
    if isinstance(command, str):
        return command
    words = [str(word) for word in command]
    if words and words[0].endswith(".py"):
        module = f"gnomon.experiments.{Path(words[0]).stem}"
        words[:1] = ["python", "-m", module]
    return shlex.join(words)
