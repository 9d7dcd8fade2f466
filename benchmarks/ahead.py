"""Compiles the training steps of three sizes for machines that need not be here.

    python benchmarks/ahead.py --machines h100 v5e-8 v5e-64

What each chip needs is as for check_kernels.py. A step takes 512 sequences of 1,024
tokens, half a million, in micro-batches; it has bfloat16 products and float32
parameters, its blocks run again for their gradient, and attention and logits are
computed in parts. It is the program that the trainer compiles
(`gnomon.experiments.trial.lanes.compile_lanes`), over the devices of the machine
instead of those of this process, laid out by `config.mesh.rules`. Bytes are the
compiler's plan for one device: `state_GB` what the program is given and gives back,
`temporary_GB` beside it. `fits` is yes, or by how many bytes not. FLOPs are those of
the matrix products, see step_memory.py, as are `logits` and `scores`, of the sequences
that a device has at a time. `gathered` are the float32 numbers that the all-gathers in
the program's text give, over those of all parameters: under `zero1`, where new
parameters are gathered and no state, that is one at most. `moved` lists all
collectives, the largest first.
"""

import argparse
import collections
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import check_kernels  # before jax: it says what libtpu compiles for
import jax
import jax.numpy as jnp
import step_memory
from _timing import table
from jax.experimental import topologies

from gnomon.experiments.config import defaults, override, plain, validate
from gnomon.experiments.config.trials import make_trial
from gnomon.experiments.configs.optimizers import optimizer
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.abstract import on_shapes
from gnomon.experiments.trial.lanes import compile_lanes
from gnomon.models import parameter_count

RESULTS = Path(__file__).parent / "results" / "ahead.json"
BATCH = 512
SIZES = {
    "124M": dict(width=768, depth=12, head_dim=64),
    "350M": dict(width=1024, depth=24, head_dim=64),
    "1.3B": dict(width=2048, depth=24, head_dim=128),
}


class Machine(NamedTuple):
    """Devices to compile for.

    Attributes:
      chip: a target of check_kernels.
      topology: how its compiler names them.
      devices: how many there are.
      gigabytes: memory of one that a program may take.
      attention: the implementation of attention.
      rules: of the mesh, those that make sense.
    """

    chip: str
    topology: str
    devices: int
    gigabytes: float
    attention: str
    rules: tuple[str, ...]


NAMED = ("zero1", "fsdp")
MACHINES = {
    "h100": Machine("h100", "1x1x1", 1, 80.0, "cudnn", ("",)),
    "v5e-8": Machine("v5e", "v5e:2x4", 8, 16.9, "tpu", NAMED),
    "v5e-64": Machine("v5e", "v5e:8x8", 64, 16.9, "tpu", NAMED),
}
COLUMNS = {
    "machine": "",
    "size": "",
    "optimizer": "",
    "rules": "",
    "micro": "",
    "state_GB": ".2f",
    "temporary_GB": ".2f",
    "fits": "",
    "flops_over_6ND": ".2f",
    "logits": "",
    "scores": "",
    "gathered": ".2f",
    "seconds": ".0f",
}
KEY = ("machine", "size", "optimizer", "rules", "micro")


def config_of(size: str, method: str, machine: Machine, rules: str, micro: int) -> dict:
    """The config of a row; ``micro`` sequences are on a device at a time."""
    model = SIZES[size] | {"vocab": 50_304, "scan": True, "dtype": "bfloat16"}
    model |= {"attention": machine.attention, "remat": "full", "logits_chunk": 128}
    config = override(
        plain(defaults()),
        {
            "batch": BATCH,
            "accumulate": BATCH // (machine.devices * micro),
            "evaluate.batch": BATCH,
            "tensorboard": False,
            "mesh.data": machine.devices,
            "mesh.rules": (rules,) if rules else (),
            **{f"model.{name}": value for name, value in model.items()},
        },
    )
    config = config | {"optimizer": optimizer(method)}
    validate(config)
    return config


def devices_of(machine: Machine, h100_config: str | None) -> list[Any]:
    """The devices of a machine, to compile for.

    Raises:
      Exception: the compiler is not there; what a plugin raises differs.
    """
    if machine.chip == "h100":
        return [check_kernels.device("h100", h100_config)]
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=machine.topology
    )
    return list(topology.devices)[: machine.devices]


MOVES = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
# The result of a collective; an asynchronous one gives its operand beside it.
MOVE = re.compile(rf" = (.*?) ({MOVES})(-start)?\(")


def collectives(program: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Kind, dtype and shape of what each collective of a program gives."""
    for line in program.splitlines():
        if (found := MOVE.search(line)) is None:
            continue
        given, kind, started = found.groups()
        arrays = [
            (dtype, tuple(map(int, filter(None, shape.split(",")))))
            for dtype, shape, _ in check_kernels.ARRAY.findall(given)
        ]
        if started and kind in ("all-gather", "collective-permute"):
            arrays = arrays[len(arrays) // 2 :] if kind == "all-gather" else arrays[1:2]
        for dtype, shape in arrays:
            yield kind, dtype, shape


def moved(program: str, params: Any) -> dict[str, Any]:
    """What the collectives of a program move, beside what its parameters are."""
    count = collections.Counter(collectives(program))
    sizes = {
        math.prod(leaf.shape): jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    gathered = sum(
        math.prod(shape) * times
        for (kind, dtype, shape), times in count.items()
        if kind == "all-gather" and dtype == "f32"
    )
    rows = [
        {
            "kind": kind,
            "dtype": dtype,
            "shape": list(shape),
            "times": times,
            "as_large_as": sizes.get(math.prod(shape), ""),
        }
        for (kind, dtype, shape), times in count.items()
    ]
    rows.sort(key=lambda row: -math.prod(row["shape"]))
    return {"gathered": gathered / parameter_count(params), "moved": rows}


# What libtpu says now, and what it said before.
NEEDED = r"\([\d.]+[KMG]\) exceeds available \w+ \([\d.]+[KMG]\)"
OVER = r"Exceeded [\w ]*capacity by [\d.]+[KMG]"


def excess(error: Exception) -> str:
    """By how much a program that the compiler refused does not fit, or why else."""
    text = str(error).strip()
    found = re.search(NEEDED, text) or re.search(OVER, text)
    if found is None:
        return text.splitlines()[0][:200]
    # Compilers count in powers of 1024.
    needed, *there = (
        float(number) * 1024 ** (1 + "KMG".index(unit))
        for number, unit in re.findall(r"([\d.]+)([KMG])", found.group())
    )
    return f"no, by {(needed - sum(there)) / 1e9:.1f} GB"


def check(config: dict, machine: Machine, devices: list[Any]) -> dict[str, Any]:
    """Compiles one step; what its row says."""
    length = step_memory.LENGTH
    tokens = {"tokens": jax.ShapeDtypeStruct((10**6, length + 1), jnp.uint16)}
    dataset: Any = Dataset(tokens, tokens, "", "token")
    program, *arrays = on_shapes(config, dataset)
    params = arrays[0].params
    count = parameter_count(params)
    row: dict[str, Any] = {"parameters": count}
    started = time.monotonic()
    # The devices of the process are what the trainer lays its arrays on.
    there = {"local_devices": lambda: devices, "devices": lambda: devices}
    with mock.patch.multiple(jax, **there):
        traced_step = jax.make_jaxpr(program.step)(*arrays)
        row["flops"] = step_memory.products(traced_step.jaxpr)
        row["flops_over_6ND"] = row["flops"] / (6.0 * count * BATCH * length)
        try:
            lanes = compile_lanes([make_trial(config)], dataset)
        except Exception as error:
            return row | {"fits": excess(error), "seconds": time.monotonic() - started}
    text = (lanes.steps if lanes.most > 1 else lanes.step).as_text()
    found = collections.Counter(map(math.prod, step_memory.shapes(text)))
    model, plan = config["model"], lanes.memory
    micro = BATCH // config["accumulate"] // machine.devices
    heads = model["width"] // model["head_dim"]
    needed = plan.arguments + plan.outputs + plan.temporaries - plan.aliased
    over = needed / 1e9 - machine.gigabytes
    return row | {
        "state_GB": plan.arguments / 1e9,
        "temporary_GB": plan.temporaries / 1e9,
        "fits": "yes" if over <= 0 else f"no, by {over:.1f} GB",
        "logits": found[micro * length * model["vocab"]],
        "scores": found[micro * heads * length**2],
        **moved(text, params),
        "seconds": time.monotonic() - started,
    }


def chosen(flags: argparse.Namespace) -> Iterator[tuple[str, str, str, str]]:
    """Machine, size, optimizer and rules of each row."""
    for name in flags.machines:
        for size in flags.sizes:
            for method in flags.optimizers:
                for rules in MACHINES[name].rules:
                    if flags.rules is None or rules in flags.rules:
                        yield name, size, method, rules


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", nargs="+", choices=MACHINES, default=MACHINES)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "adamp"])
    parser.add_argument("--rules", nargs="+", choices=["", *NAMED])
    parser.add_argument("--micro", type=int, default=4, help="sequences at a time")
    parser.add_argument("--h100_config", default=os.environ.get("GNOMON_H100_CONFIG"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    step_memory.without_cudnn()
    rows: list[Mapping[str, Any]] = []
    for name, size, method, rules in chosen(flags):
        machine = MACHINES[name]
        row = dict(zip(KEY, (name, size, method, rules, flags.micro), strict=True))
        try:
            devices = devices_of(machine, flags.h100_config)
        except Exception as error:
            row |= {"fits": f"no compiler: {str(error).splitlines()[0]}"}
        else:
            config = config_of(size, method, machine, rules, flags.micro)
            row |= check(config, machine, devices)
        rows.append(row)
        print(table([row], COLUMNS), flush=True)
        step_memory.store(flags.output, [row], KEY)
    print("\n" + table(rows, COLUMNS))
    return int(any("fits" not in row or ":" in row["fits"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
