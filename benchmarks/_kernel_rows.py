"""The rows of the kernels' table: what was timed, and how right it was."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import _kernel_leaves as small
import jax
import numpy as np
from _kernel_numerics import compare, draw, exact
from _kernel_rivals import Call, copy, optax_adamw, torch_adamw
from _timing import interleave

from gnomon.kernels.cases import LEARNING_RATE, WEIGHT_DECAY, Case, nbytes

Row = dict[str, Any]

# Operations that are compared with AdamW.
STEPS = ("adam", "adamp", "fadam", "adam_8bit", "adamp_8bit")


def caller(function: Any, case: Case, seed: int) -> Call:
    """A call to time; where it donates, its results are the next call's inputs."""
    inputs = draw(case, seed)

    def call():
        results = jax.tree.leaves(function(*inputs))
        for i, result in zip(
            case.donated, results if case.donated else (), strict=True
        ):
            inputs[i] = result
        return results

    return call


def rivals(case: Case, seed: int, torch: bool = True) -> dict[str, Call]:
    """AdamW by others on the leaf of a step, where there is a comparison.

    Args:
      case: the step.
      seed: of its inputs.
      torch: whether torch is among them, where it is installed.
    """
    if case.op not in STEPS or case.normals[0].dtype != "float32":
        return {}
    hypers: Any = dict(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    calls = {"optax": optax_adamw(*draw(case, seed)[:2], **hypers)}
    fused = torch_adamw([case.normals[0].shape], **hypers) if torch else None
    return calls if fused is None else calls | {"torch": fused}


def figures(
    samples: Mapping[str, Sequence[float]], name: str, needed: int, copied: int
) -> Row:
    """What one implementation's times say.

    Args:
      samples: seconds a call of everything timed, ``"copy"`` among it.
      name: the implementation.
      needed: the bytes it needs to move.
      copied: the bytes that the copy moves.
    """
    low, seconds, high = map(float, np.quantile(samples[name], [0.25, 0.5, 0.75]))
    bandwidth = copied / statistics.median(samples["copy"])
    return {
        "MB_needed": needed / 1e6,
        "copy_GB_s": bandwidth / 1e9,
        "us": seconds * 1e6,
        "low_us": low * 1e6,
        "high_us": high * 1e6,
        "share": needed / seconds / bandwidth,
    }


def over(samples: Mapping[str, Sequence[float]], name: str, **others: str) -> Row:
    """Its median time over those of others that were timed."""
    seconds = statistics.median(samples[name])
    return {
        column: seconds / statistics.median(samples[other])
        for column, other in others.items()
        if other in samples and other != name
    }


def trouble(problem: Exception) -> Row:
    """A row's account of a kernel that did not run."""
    text = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
    refused = isinstance(problem, ValueError) and "does not support" in text
    return {"why": text if refused else f"failed: {text}", "refused": refused}


def identity(case: Case, by: str) -> Row:
    """What a row says before anything is measured."""
    first = case.inputs[0]
    return {
        "op": case.op,
        "shape": f"{case.shape} {'x'.join(map(str, first.shape))}",
        "dtype": str(first.dtype),
        "projects": case.projects,
        "by": by,
        "numbers": first.size,
    }


def measure(
    case: Case,
    kernel: str | None,
    *,
    repeats: int,
    calls: int,
    seed: int,
    torch: bool = True,
) -> list[Row]:
    """The rows of one case: XLA and its kernel, where there is one."""
    want = exact(case, draw(case, seed))
    rows: list[Row] = []
    timed: dict[str, Call] = {}
    for by in ("xla", kernel):
        if by is None:
            continue
        row = identity(case, by)
        rows.append(row)
        try:
            function = case.jit(by)
            results = function(*draw(case, seed))
            row |= compare(case, jax.tree.leaves(results), want)
            # Compiled once for both, unless calls in a row need other numbers.
            steady = function if case.still is case else case.still.jit(by)
            call = caller(steady, case, seed + 1)
            jax.block_until_ready(call())
            timed[by] = call
        # A kernel's first meeting with a device may end in any error; others go on.
        except Exception as problem:
            row |= trouble(problem)
    del want
    copied = nbytes(case.inputs[0])
    timed |= {"copy": copy(copied, seed)} | rivals(case, seed + 1, torch)
    samples = interleave(timed, repeats=repeats, calls=calls)
    for row in rows:
        by = row["by"]
        if by in samples:
            row |= figures(samples, by, case.bytes_needed, 2 * copied)
            row |= over(samples, by, to_xla="xla", to_optax="optax", to_torch="torch")
    return rows


def measure_leaves(
    blocks: int,
    kernel: Any,
    *,
    repeats: int,
    calls: int,
    seed: int,
    torch: bool = True,
) -> list[Row]:
    """The rows of a tree of small leaves, one by one and in buckets."""
    seeds = itertools.count(seed)
    params = small.draw(blocks, next(seeds))
    grads = [small.draw(blocks, next(seeds)) for _ in range(3)]
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    want = small.exact(params, grads)
    rows: dict[str, Row] = {}
    timed: dict[str, Call] = {}
    for (how, by), optimizer in small.optimizers(kernel).items():
        rows[f"{how} by {by}"] = row = {
            "op": how.removeprefix("in ").replace(" ", "_"),
            "shape": f"{len(shapes)} leaves",
            "dtype": "float32",
            "by": by,
            "numbers": want.size,
            "leaves": len(shapes),
        }
        try:
            run = small.Run(optimizer, params, grads[0])
            for moved in grads:
                run.step(moved)
            got = small.joined(run.params, "float64")
            row["error"] = float(np.linalg.norm(got - want) / np.linalg.norm(want))
            timed[f"{how} by {by}"] = lambda run=run: run.step(grads[0])
        except Exception as problem:
            row |= trouble(problem)
    nbytes = 4 * want.size
    timed["copy"] = copy(nbytes, seed)
    hypers: Any = dict(
        learning_rate=small.LEARNING_RATE, weight_decay=small.HYPERS["weight_decay"]
    )
    fused = torch_adamw(shapes, **hypers) if torch else None
    if fused is not None:
        timed["torch"] = fused

    def renew():
        grads[0] = jax.block_until_ready(small.draw(blocks, next(seeds)))

    samples = interleave(timed, repeats=repeats, calls=calls, before=renew)
    rivals = dict(to_xla="one by one by xla", to_optax="one by one by optax")
    for name, row in rows.items():
        if name in samples:
            row |= figures(samples, name, 7 * nbytes, 2 * nbytes)
            row |= over(samples, name, **rivals, to_torch="torch")
    return list(rows.values())
