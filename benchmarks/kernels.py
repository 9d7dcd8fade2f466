"""Times every kernel against XLA's version, a device copy and the known fused steps.

    python benchmarks/kernels.py

On a TPU or a GPU each operation runs on buffers well past the caches, by its kernel and
by XLA. On a CPU only XLA's version is timed, on small buffers: there the table shows
that the harness works, and what the definitions cost, not what kernels are worth.

Samples are interleaved with each other and with a copy of as many bytes as the first
input has, on fresh random data. `share` is the part of the copy's bandwidth that an
operation reaches with the bytes it needs, `MB_needed`: every input read once, every
result written once. `to_xla` is its time over that of XLA, `to_optax` over that of
`optax.adamw` under jit with donation, and `to_torch` over torch's fused AdamW in the
same process, where torch is installed; both on float32 parameters, as their moments
take the parameters' dtype. Median times; what was not measured is left blank.

`projects` is what AdamP projects: nothing where the gradient lies along the weights,
its units or the whole layer where it lies across them. `buckets` is a tree of small
leaves joined by `bucket_leaves`, its `to_xla` over the same tree one by one.

Every result is compared with float64 in the same run: `error` is the distance over the
length, of the worst result. Moments in 8 bits are compared by their scales, in `error`,
and by `codes`: how many codes lie between a code and its number in float64. Both
neighbors of a number are right, so that is at most one.

At the end: which goals the run reached on a GPU, and which kernels were faster than XLA
on every shape, by more than the spread, and so deserve a place in
`kernels.engine.choice.FASTER_THAN_XLA`; to write it there is left to people.
"""

import argparse
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from _kernel_numerics import wrong
from _kernel_rows import Row, identity, measure, measure_leaves, trouble
from _kernel_verdicts import GOALS, faster, judge, label
from _timing import environment, table, write

from gnomon.kernels.cases import (
    Case,
    coded_cases,
    leaf_cases,
    norm_cases,
    projecting_cases,
    turns,
)
from gnomon.kernels.shapes import Activations, Leaf

RESULTS = Path(__file__).parent / "results" / "kernels.json"
COLUMNS = {
    "op": "",
    "shape": "",
    "dtype": "",
    "projects": "",
    "by": "",
    "MB_needed": ".1f",
    "us": ".0f",
    "share": ".2f",
    "to_xla": ".2f",
    "to_optax": ".2f",
    "to_torch": ".2f",
    "error": ".0e",
    "codes": ".3f",
}


def shapes(platform: str) -> tuple[list[Activations], list[Leaf]]:
    """Buffers past the caches of an accelerator; on a CPU ones that are soon done."""
    rows = 2**12 if platform == "cpu" else 2**16
    width = 256 if platform == "cpu" else 4096
    tokens = [
        Activations(f"{dtype}/tokens", (rows, width), dtype)
        for dtype in ("bfloat16", "float32")
    ]
    # 100,663,296 numbers on an accelerator.
    weight = (2 * width, rows // 2) if platform == "cpu" else (width, 6 * width)
    leaves = [
        Leaf("rows", weight, "float32", 1),
        Leaf("columns", weight, "float32", 0),
        Leaf("rows", weight, "bfloat16", 1),
    ]
    return tokens, leaves


def all_cases(platform: str) -> Iterator[Case]:
    """Every operation, AdamP by all that it may project."""
    tokens, leaves = shapes(platform)
    yield from norm_cases(tokens)
    yield from leaf_cases(leaves)
    yield from projecting_cases(leaves, tuple(turns(0)))
    yield from coded_cases(leaves)


def run(flags: argparse.Namespace, platform: str) -> list[Row]:
    """All rows of the table."""
    kernel = None if platform == "cpu" else platform
    # On an accelerator a call is over before Python has begun the next.
    calls = 1 if kernel is None else 10
    options: Any = dict(repeats=flags.repeats, calls=calls, seed=flags.seed)
    rows: list[Row] = []
    for case in all_cases(platform):
        # Adam has no units: rows and columns are one case.
        if case.op.startswith("adam") and case.shape == "columns" and not case.projects:
            continue
        if flags.ops and case.op not in flags.ops:
            continue
        try:
            rows += measure(case, kernel, **options)
        # Such as too little memory: the other rows are worth having all the same.
        except Exception as problem:
            rows.append(identity(case, kernel or "xla") | trouble(problem))
    if not flags.ops or "buckets" in flags.ops:
        rows += measure_leaves(flags.blocks, kernel, **options)
    return rows


def report(
    rows: Sequence[Row], goals: Sequence[Row], paying: Sequence[str], platform: str
) -> None:
    """Prints the table, what did not run, the goals and the kernels that pay."""
    print(table(rows, COLUMNS))
    for row in rows:
        if "why" in row:
            print(f"{row['op']} {label(row)}: {row['why']}")
    print("\nGoals on a GPU")
    for goal in goals:
        print(f"  {goal['goal']} {goal['target']}: {goal['verdict']}", end="")
        print(f": {goal['reason']}" if "reason" in goal else "")
        for name, figure in goal.get("figures", {}).items():
            print(f"    {figure:.2f} {name}")
    print(f"\nFor FASTER_THAN_XLA on {platform}: {', '.join(paying) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ops", nargs="+", help="only operations of these names")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=100, help="of three small leaves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    platform = jax.default_backend()
    record: dict[str, Any] = environment() | {"small": platform == "cpu"}
    if importlib.util.find_spec("torch"):
        record["versions"]["torch"] = importlib.metadata.version("torch")
    rows = run(flags, platform)
    goals = [judge(goal, rows, platform) for goal in GOALS]
    paying = faster(rows, platform)
    report(rows, goals, paying, platform)
    if platform == "cpu":
        print("\nCPU: small buffers, XLA alone. No kernel ran; GPU and TPU rows: none.")
    write(
        flags.output, record | {"rows": rows, "goals": goals, "faster_than_xla": paying}
    )
    bad = [
        f"{row['op']} {label(row)}"
        for row in rows
        if row.get("why", "").startswith("failed") or ("us" in row and wrong(row))
    ]
    if bad:
        raise SystemExit("wrong results, or none: " + "; ".join(bad))


if __name__ == "__main__":
    main()
