"""What the rows of the kernels' table show: goals reached, and kernels that pay."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from _kernel_numerics import wrong

Row = Mapping[str, Any]

# Numbers that a leaf must have for what is said of large ones.
LARGE = 10**8

# The key in kernels.FASTER_THAN_XLA that each row of the table speaks for.
CHOICES = {
    "adam": "adam",
    "adam_8bit": "adam_8bit",
    "adamp": "adamp",
    "adamp_8bit": "adam_8bit",
    "fadam": "fadam",
    "fixed_norm": "fixed_norm",
    "fixed_norm_units": "fixed_norm",
    "layer_norm": "layer_norm",
    "layer_norm_backward": "layer_norm",
    "rms_norm": "rms_norm",
    "rms_norm_backward": "rms_norm",
    "variance": "variance",
    "weight_norm": "weight_norm",
    "weight_norm_backward": "weight_norm",
}


class Goal(NamedTuple):
    """A figure that kernels should reach on a GPU."""

    text: str
    op: str
    figure: Callable[[Sequence[Row], Row], float | None]  # of all rows, and one of op
    at_least: bool
    target: float
    numbers: int = 0  # rows of smaller arrays say nothing
    # Implementations that may reach it; of several the best decides.
    by: Sequence[str] = ("gpu",)


def share(rows: Sequence[Row], row: Row) -> float:
    """Of a copy's bandwidth."""
    return row["share"]


def to_adam(rows: Sequence[Row], row: Row) -> float | None:
    """Time over that of Adam's kernel on as large a leaf."""
    alike = ("by", "numbers", "dtype")
    times = [
        r["us"]
        for r in rows
        if r["op"] == "adam" and "us" in r and all(r[k] == row[k] for k in alike)
    ]
    return row["us"] / min(times) if times else None


def to_one_by_one(rows: Sequence[Row], row: Row) -> float | None:
    """How many times longer XLA takes leaf by leaf."""
    alike = (r for r in rows if r["op"] == "one_by_one" and r["by"] == "xla")
    times = [r["us"] for r in alike if r["leaves"] == row["leaves"] and "us" in r]
    return min(times) / row["us"] if times else None


GOALS = (
    Goal("AdamW, share of a copy", "adam", share, True, 0.90, LARGE),
    Goal("AdamP, share of a copy", "adamp", share, True, 0.90, LARGE),
    Goal("AdamP, time over AdamW's", "adamp", to_adam, False, 1.05, LARGE),
    Goal(
        "300 leaves, time one by one by XLA over time in buckets",
        "buckets",
        to_one_by_one,
        True,
        3.0,
        by=("gpu", "xla"),
    ),
    Goal("RMSNorm forward, share of a copy", "rms_norm", share, True, 0.85),
    Goal("RMSNorm backward, share of a copy", "rms_norm_backward", share, True, 0.70),
)


def judge(goal: Goal, rows: Sequence[Row], platform: str) -> dict[str, Any]:
    """Whether the rows of one run reach a goal.

    Args:
      goal: the goal.
      rows: of the table.
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``, where they were measured.

    Returns:
      ``goal`` and ``target`` for people; ``verdict``: ``"reached"``, ``"missed"``, or
      ``"not measured"`` with a ``reason``; where measured, the ``figures`` of all rows
      that count. The worst of them decides, the best where the goal may be reached by
      any of several implementations.
    """
    relation = operator.ge if goal.at_least else operator.le
    sign = ">=" if goal.at_least else "<="
    record = {"goal": goal.text, "target": f"{sign} {goal.target:g}"}
    if platform != "gpu":
        return record | {"verdict": "not measured", "reason": "needs a GPU"}
    mine = [
        row
        for row in rows
        if row["op"] == goal.op
        and row["by"] in goal.by
        and row["numbers"] >= goal.numbers
    ]
    bad = [row for row in mine if "us" not in row or wrong(row)]
    if len(goal.by) > 1:
        mine = [row for row in mine if row not in bad] or mine
    if any(row in bad for row in mine):
        reason = bad[0].get("why", "its results are wrong")
        return record | {"verdict": "not measured", "reason": reason}
    figures = {label(row): goal.figure(rows, row) for row in mine}
    known = {name: figure for name, figure in figures.items() if figure is not None}
    if not known or len(known) < len(figures):
        size = f" on {goal.numbers:,} numbers or more" if goal.numbers else ""
        reason = f"{goal.op} did not run{size}, or what it is compared with did not"
        return record | {"verdict": "not measured", "reason": reason}
    decide = any if len(goal.by) > 1 else all
    reached = decide(relation(figure, goal.target) for figure in known.values())
    return record | {"verdict": "reached" if reached else "missed", "figures": known}


def label(row: Row) -> str:
    """What tells a row from the others of its operation."""
    projects = f"projects {row['projects']}" if row.get("projects") else ""
    parts = (row["shape"], row["dtype"], projects, f"by {row['by']}")
    return ", ".join(filter(None, parts))


def faster(rows: Sequence[Row], platform: str) -> list[str]:
    """The operations whose kernel deserves to be the default on a platform.

    Args:
      rows: of the table.
      platform: the kernel's name in the column ``by``.

    Returns:
      Names whose kernel gave right results and was faster than XLA on every shape that
      it took, by more than the spread: three quarters of its samples took less time
      than three quarters of XLA's.
    """
    by_xla = {key(row): row.get("low_us", 0.0) for row in rows if row["by"] == "xla"}
    found: dict[str, bool] = {}
    for row in rows:
        name = CHOICES.get(row["op"])
        if name is None or row["by"] != platform or row.get("refused"):
            continue
        beats = row.get("high_us", math.inf) < by_xla[key(row)] and not wrong(row)
        found[name] = found.get(name, True) and beats
    return sorted(name for name, always in found.items() if always)


def key(row: Row) -> tuple[str, ...]:
    """What rows that differ by their implementation alone share."""
    return tuple(row.get(name, "") for name in ("op", "shape", "dtype", "projects"))
