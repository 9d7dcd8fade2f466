"""Sections on kernels: their results on the chip, and their times."""

import contextlib
import functools
import importlib.util
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from _device_stages import Row

# Leaves and activations on which every kernel must be right, in order of worth.
SHAPES = (
    "gpt2/mlp_in",
    "gpt2/tokens",
    "1.3b/mlp_out",
    "ragged/primes",
    "8b/tokens_f32",
    "gpt2/embedding",
    "ragged/odd",
    "ragged/tall",
    "resnet50/conv3x3_wide",
    "ragged/flat",
    "ragged/vector",
    "gpt2/scale",
    "ragged/narrow",
)
# Two libraries of CUDA in one process may be the end of it: an item of its own.
TORCH = " beside torch"


def kernel_of(platform: str) -> str:
    """The kernel that runs on a platform; on a CPU the TPU's, interpreted."""
    return "gpu" if platform == "gpu" else "tpu"


def _platform() -> str:
    import jax

    return jax.default_backend()


def _named(cases: Iterator[Any]) -> dict[str, Any]:
    def name(case: Any) -> str:
        dtype = case.normals[0].dtype
        parts = (case.op, case.shape, str(dtype), case.projects)
        return " ".join(filter(None, parts))

    return {name(case): case for case in cases}


def _in_turn(names: list[str]) -> list[str]:
    """One of each operation, then the next of each: a cut leaves none without any."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split()[0], []).append(name)
    rounds = itertools.zip_longest(*groups.values())
    return [name for one in rounds for name in one if name is not None]


@functools.cache
def checked_cases(quick: bool) -> dict[str, Any]:
    """The cases of `correct`, by name."""
    from gnomon.kernels.cases import (
        coded_cases,
        leaf_cases,
        norm_cases,
        projecting_cases,
        turns,
    )
    from gnomon.kernels.shapes import ACTIVATIONS, LEAVES, Activations, Leaf

    rank = {name: at for at, name in enumerate(SHAPES)}
    tokens, leaves = (
        sorted((x for x in shapes if x.name in rank), key=lambda x: rank[x.name])
        for shapes in (ACTIVATIONS, LEAVES)
    )
    if quick:  # the interpreter takes its time
        tokens = [Activations("small/tokens", (16, 256), "bfloat16")]
        leaves = [Leaf("small/rows", (8, 256), "float32", 1)]
    chained = itertools.chain(
        leaf_cases(leaves),
        projecting_cases(leaves, tuple(turns(0))),
        coded_cases(leaves),
        norm_cases(tokens),
    )
    return _named(chained)


def check_items(settings: Mapping[str, Any]) -> list[str]:
    """What `check` can be asked."""
    names = _in_turn(list(checked_cases(settings["quick"])))
    return names[:4] if settings["quick"] else names


def check(item: str, settings: Mapping[str, Any]) -> list[Row]:
    """One kernel's results beside float64."""
    import jax
    from _kernel_numerics import compare, draw, exact, wrong
    from _kernel_rows import identity, trouble

    case, platform = checked_cases(settings["quick"])[item], _platform()
    by = kernel_of(platform)
    row = identity(case, by)
    want = exact(case, draw(case, 0))
    try:
        with _interpreted(platform):
            got = jax.block_until_ready(case.jit(by)(*draw(case, 0)))
            row |= compare(case, jax.tree.leaves(got), want)
    except ValueError as problem:
        row |= trouble(problem)
        if not row["refused"]:
            raise
        return [row]
    return [row | {"right": not wrong(row)}]


def _interpreted(platform: str) -> Any:
    if platform != "cpu":
        return contextlib.nullcontext()
    from jax.experimental.pallas import tpu as pltpu

    return pltpu.force_tpu_interpret_mode()


@functools.cache
def timed_cases(platform: str) -> dict[str, Any]:
    """The cases of `kernels`, by name; Adam has no units: its columns are its rows."""
    import kernels

    kept = (
        case
        for case in kernels.all_cases(platform)
        if case.projects or not case.op.startswith("adam") or case.shape != "columns"
    )
    return _named(kept)


def time_items(settings: Mapping[str, Any]) -> list[str]:
    """What `timed` can be asked: large leaves, and a tree of small ones.

    The tree takes long to compile, and torch to import: they come after each operation
    has had its turn.
    """
    items = _in_turn(list(timed_cases(_platform())))
    if settings["quick"]:
        items = [item for item in items if item.startswith(("rms_norm ", "adam "))][:2]
    first = len({item.split()[0] for item in items})
    adam = next(item for item in items if item.startswith("adam "))
    beside = [f"{adam}{TORCH}"] if importlib.util.find_spec("torch") else []
    return [*items[:first], "buckets", *beside, *items[first:]]


def timed(item: str, settings: Mapping[str, Any]) -> list[Row]:
    """Rows of the table of kernels.py."""
    from _kernel_rows import measure, measure_leaves

    platform = _platform()
    kernel = None if platform == "cpu" else platform
    repeats = 2 if settings["quick"] else 10
    options: Any = dict(repeats=repeats, calls=1 if kernel is None else 10, seed=0)
    item, torch = item.removesuffix(TORCH), item.endswith(TORCH)
    options["torch"] = torch
    if item == "buckets":
        return measure_leaves(1 if settings["quick"] else 100, kernel, **options)
    return measure(timed_cases(platform)[item], kernel, **options)
