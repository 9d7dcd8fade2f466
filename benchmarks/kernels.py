"""Times every kernel against XLA's version, a device copy and the known fused steps.

    python benchmarks/kernels.py

On a TPU or a GPU each operation runs on buffers well past the caches, by its kernel and
by XLA. On a CPU only XLA's version is timed, on small buffers: there the table shows
that the harness works, and what the definitions cost, not what kernels are worth.

Calls are interleaved with each other and with a copy of the first input, on fresh
random data, and every result is compared with float64 in the same run. `share` is the
part of the copy's bandwidth that an operation reaches with the bytes it needs; `to_xla`
is its time over that of XLA, `to_optax` over that of `optax.adamw` under jit with
donation, and `to_torch` over torch's fused AdamW in the same process, where torch is
installed. Median times. What was not measured is left blank.
"""

import argparse
import functools
import importlib.util
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _kernel_cases import LEARNING_RATE, WEIGHT_DECAY, Case, leaf_cases, norm_cases
from _timing import environment, interleave, table, write

from gnomon.kernels.shapes import Activations, Leaf

RESULTS = Path(__file__).parent / "results" / "kernels.json"
STEPS = ("adam", "adamp")
COLUMNS = {
    "op": "",
    "shape": "",
    "dtype": "",
    "by": "",
    "MB_needed": ".1f",
    "us": ".0f",
    "share": ".2f",
    "to_xla": ".2f",
    "to_optax": ".2f",
    "to_torch": ".2f",
    "error": ".0e",
}
# Largest relative error, in the Euclidean norm of each result, by dtype of the input.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-7}


def shapes(platform: str) -> tuple[list[Activations], list[Leaf]]:
    """Buffers past the caches of an accelerator; on a CPU ones that are soon done."""
    rows = 2**12 if platform == "cpu" else 2**16
    width = 256 if platform == "cpu" else 4096
    tokens = [
        Activations(f"{dtype}/tokens", (rows, width), dtype)
        for dtype in ("bfloat16", "float32")
    ]
    weight = (2 * width, rows // 2) if platform == "cpu" else (width, 6 * width)
    leaves = [Leaf("rows", weight, "float32", 1), Leaf("columns", weight, "float32", 0)]
    return tokens, leaves


def draw(case: Case, seed: int) -> list[jax.Array]:
    """Fresh normal numbers; second moments are squares."""
    keys = jax.random.split(jax.random.key(seed), len(case.inputs))
    arrays = [
        jax.random.normal(key, x.shape, x.dtype)
        for key, x in zip(keys, case.inputs, strict=True)
    ]
    if case.op in STEPS:
        arrays[3] = jnp.square(arrays[3])
    return arrays


def error(case: Case, implementation: str, seed: int) -> float:
    """Distance to the definition in float64 over its length; the worst result."""
    inputs = draw(case, seed)
    exact = [np.asarray(x, np.float64) for x in inputs]
    got = [
        np.asarray(a, np.float64)
        for a in jax.tree.leaves(case.jit(implementation)(*inputs))
    ]
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        want = jax.tree.leaves(case.jit("xla")(*map(jnp.asarray, exact)))
    pairs = zip(got, map(np.asarray, want), strict=True)
    return max(
        float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)) for a, b in pairs
    )


def caller(function: Any, case: Case, seed: int) -> Callable[[], Any]:
    """A call to time; where it donates, its results are the next call's inputs."""
    inputs = draw(case, seed)

    def call():
        results = function(*inputs)
        for i, result in zip(
            case.donated, results if case.donated else (), strict=True
        ):
            inputs[i] = result
        return results

    return call


def optax_caller(case: Case, seed: int) -> Callable[[], Any]:
    """`optax.adamw` on the same leaf."""
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, grads, _, _ = draw(case, seed)
    moving = [params, jax.jit(optimizer.init)(params)]

    def call():
        moving[:] = step(*moving, grads)
        return moving

    return call


def torch_caller(case: Case) -> Callable[[], Any] | None:
    """torch's fused AdamW on as many numbers; None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        return None
    dtype = getattr(torch, str(case.inputs[0].dtype))
    weight = torch.randn(case.inputs[0].shape, dtype=dtype, device=device)
    weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.AdamW(
        [weight], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )

    def call():
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def measure(case: Case, kernel: str | None, repeats: int, seed: int) -> list[dict]:
    """The rows of one case: its kernel, where there is one, and XLA."""
    implementations = ["xla"]
    refused = ""
    if kernel is not None:
        try:
            case.jit(kernel).lower(*case.inputs)
            implementations.append(kernel)
        except ValueError as problem:
            refused = str(problem)
    errors = {by: error(case, by, seed) for by in implementations}
    first = draw(case, seed)[0]
    # Adding an unknown one: a plain copy is a call that XLA can leave out.
    copy, one = jax.jit(lambda x, one: x + one), jnp.ones([], first.dtype)
    calls: dict[str, Callable[[], Any] | None] = {"copy": lambda: copy(first, one)}
    for by in implementations:
        calls[by] = caller(case.jit(by), case, seed + 1)
    if case.op in STEPS:
        calls["optax"] = optax_caller(case, seed + 1)
        # A step on a CPU backend beside an accelerator's would be no comparison.
        calls["torch"] = torch_caller(case) if jax.default_backend() != "tpu" else None
    timed = {name: call for name, call in calls.items() if call is not None}
    samples = interleave(timed, repeats=repeats)
    seconds = {name: statistics.median(times) for name, times in samples.items()}
    bandwidth = 2 * first.nbytes / seconds["copy"]
    rows = []
    for by in implementations:
        row = {
            "op": case.op,
            "shape": f"{case.shape} {'x'.join(map(str, first.shape))}",
            "dtype": str(first.dtype),
            "by": by,
            "MB_needed": case.bytes_needed / 1e6,
            "us": seconds[by] * 1e6,
            "share": case.bytes_needed / seconds[by] / bandwidth,
            "error": errors[by],
        }
        for other in ("xla", "optax", "torch"):
            if other in seconds and other != by:
                row[f"to_{other}"] = seconds[by] / seconds[other]
        rows.append(row)
    if refused:
        rows.append({"op": case.op, "shape": case.shape, "by": kernel, "why": refused})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ops", nargs="+", help="only operations of these names")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    platform = jax.default_backend()
    kernel = None if platform == "cpu" else platform
    tokens, leaves = shapes(platform)
    rows: list[dict[str, Any]] = []
    for case in (*norm_cases(tokens), *leaf_cases(leaves)):
        if flags.ops and case.op not in flags.ops:
            continue
        # Adam has no units: rows and columns are one case.
        if case.op == "adam" and case.shape == "columns":
            continue
        rows += measure(case, kernel, flags.repeats, flags.seed)
    print(table(rows, COLUMNS))
    if kernel is None:
        print("\nCPU: small buffers, XLA alone. No kernel ran; GPU and TPU rows: none.")
    record = environment() | {"small": kernel is None, "rows": rows}
    write(flags.output, record)
    wrong = [
        f"{row['op']} {row['shape']} by {row['by']}: {row['error']:.1e}"
        for row in rows
        if "error" in row and row["error"] > TOLERANCE[row["dtype"]]
    ]
    if wrong:
        raise SystemExit("wrong results: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
