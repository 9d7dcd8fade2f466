"""Compiles the training step of GPT-2 small for chips that need not be here.

    python benchmarks/step_memory.py --targets v5e h100

What each chip needs is as for check_kernels.py. The model has width 768, 12 scanned
layers, 50,304 tokens and sequences of 1,024. `plain` is the step as a config has it by
default, `lean` takes its batch in micro-batches, recomputes blocks, and has attention
and logits in parts. Bytes are the compiler's plan: `temporary` beside `arguments`,
which are the state and the batch, and reused for the results. FLOPs are those of the
matrix products in the program, loops counted as often as they run, without those inside
an attention kernel; over 6 N D, N being all parameters and D the tokens. `logits` and
`scores` count the float32 arrays in the compiled program with as many elements as
[batch, length, vocab] and [batch, heads, length, length], of a batch or a micro-batch.
"""

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check_kernels  # before jax: it says what libtpu compiles for
import jax
import jax.numpy as jnp
from _timing import environment, table, write
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import SingleDeviceSharding

from gnomon.experiments.config import defaults, override, plain
from gnomon.experiments.config.trials import split
from gnomon.experiments.configs.optimizers import optimizer
from gnomon.experiments.trial.operations import operations
from gnomon.experiments.trial.program import make_program
from gnomon.models import parameter_count

LENGTH, HEAD_DIM = 1024, 64
MODEL = {
    "model.name": "gnomon.models.TransformerLM",
    "model.vocab": 50_304,
    "model.width": 768,
    "model.depth": 12,
    "model.head_dim": HEAD_DIM,
    "model.scan": True,
    "model.dtype": "bfloat16",
}
KERNELS = {"v5e": "tpu", "v6e": "tpu", "h100": "cudnn"}
COLUMNS = {
    "target": "",
    "step": "",
    "optimizer": "",
    "attention": "",
    "batch": "",
    "accumulate": "",
    "temporary_GB": ".2f",
    "arguments_GB": ".2f",
    "flops_over_6ND": ".2f",
    "logits": "",
    "scores": "",
    "seconds": ".0f",
    "result": "",
}


def config_of(name: str, flags: argparse.Namespace, attention: str) -> dict:
    """The config of a row."""
    config = override(plain(defaults()), MODEL)
    if name == "plain":
        return override(config, {"batch": flags.plain_batch})
    return override(
        config,
        {
            "batch": flags.batch,
            "accumulate": flags.accumulate,
            "model.attention": attention,
            "model.remat": flags.remat,
            "model.logits_chunk": flags.chunk,
        },
    )


def products(jaxpr: Any) -> float:
    """FLOPs of the matrix products of a program, a multiply-add being two."""
    return sum(flops for name, flops in operations(jaxpr) if name == "dot_general")


def shapes(program: str) -> Iterator[tuple[int, ...]]:
    """The shapes of the float32 arrays in the text of a program."""
    for found in set(re.findall(r"f32\[([\d,]+)\]", program)):
        yield tuple(map(int, found.split(",")))


def check(name: str, method: str, chip: Any, config: dict) -> dict[str, Any]:
    """Compiles one step; a row of the table."""
    config = config | {"optimizer": optimizer(method)}
    batch, parts, model = config["batch"], config["accumulate"], config["model"]
    row = {
        "step": name,
        "optimizer": method,
        "attention": model.get("attention", "xla"),
        "batch": batch,
        "accumulate": parts,
    }
    static, traced = split(config)
    program = make_program(static)
    place = SingleDeviceSharding(chip)

    def on_chip(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    tokens = {"tokens": jax.ShapeDtypeStruct((batch, LENGTH + 1), jnp.uint16)}
    hypers = {key: jnp.asarray(value) for key, value in traced.items()}
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    state = jax.eval_shape(program.init, seed, hypers, tokens)
    arguments = jax.tree.map(on_chip, (state, tokens, hypers))
    started = time.monotonic()
    step = jax.jit(program.step, donate_argnums=0).trace(*arguments)
    row["flops"] = products(step.jaxpr.jaxpr)
    count = parameter_count(state.params)
    row["flops_over_6ND"] = row["flops"] / (6.0 * count * batch * LENGTH)
    lowered = step.lower()
    try:
        compiled = lowered.compile()
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        return row | {"result": first[:160], "seconds": time.monotonic() - started}
    memory = compiled.memory_analysis()
    found = list(map(math.prod, shapes(compiled.as_text())))
    sizes = {batch, batch // parts}
    heads = model["width"] // HEAD_DIM
    return row | {
        "parameters": count,
        "temporary_GB": memory.temp_size_in_bytes / 1e9,
        "arguments_GB": memory.argument_size_in_bytes / 1e9,
        "logits": sum(found.count(b * LENGTH * model["vocab"]) for b in sizes),
        "scores": sum(found.count(b * heads * LENGTH**2) for b in sizes),
        "seconds": time.monotonic() - started,
        "result": "compiled",
    }


KEY = ("target", "step", "optimizer", "attention", "batch", "accumulate")


def store(path: Path, rows: list[dict[str, Any]], names: tuple[str, ...] = KEY) -> None:
    """Adds rows to a file; those of the same names take the place of older ones."""
    about = environment()
    kept = {name: about[name] for name in ("command", "date", "versions")}
    found = json.loads(path.read_text())["rows"] if path.exists() else []
    every = {tuple(row[name] for name in names): row for row in found}
    for row in rows:
        every[tuple(row[name] for name in names)] = row | kept
    write(path, {"rows": [every[key] for key in sorted(every)]})


def without_cudnn() -> None:
    """Lets JAX lower attention for cuDNN where neither it nor a GPU is installed."""
    cudnn.check_cudnn_version = lambda: 91_000
    cudnn.check_compute_capability = lambda *_: True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    targets = check_kernels.TARGETS
    parser.add_argument(
        "--targets", nargs="+", choices=targets, default=["v5e", "h100"]
    )
    parser.add_argument("--h100_config", default=os.environ.get("GNOMON_H100_CONFIG"))
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "adamp"])
    parser.add_argument("--steps", nargs="+", default=["plain", "lean"])
    parser.add_argument("--plain_batch", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--remat", default="full")
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument(
        "--attention", help="of the lean step; default the chip's kernel"
    )
    parser.add_argument("--output", type=Path, help="a JSON file for the table")
    flags = parser.parse_args()
    rows = []
    without_cudnn()
    for target in flags.targets:
        try:
            chip = check_kernels.device(target, flags.h100_config)
        # What a plugin that is not installed raises differs from plugin to plugin.
        except Exception as error:
            print(f"{target}: skipped: {str(error).splitlines()[0]}")
            continue
        attention = flags.attention or KERNELS[target]
        for name in flags.steps:
            for method in flags.optimizers if name == "lean" else ["adamw"]:
                config = config_of(name, flags, attention)
                row = {"target": target, **check(name, method, chip, config)}
                rows.append(row)
                print(table([row], COLUMNS), flush=True)
    print("\n" + table(rows, COLUMNS))
    if flags.output is not None:
        store(flags.output, rows)
    return int(any(row["result"] != "compiled" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
