"""Compiles every kernel ahead of time for chips that need not be here.

    python benchmarks/check_kernels.py --targets v5e v6e h100

TPUs need `pip install "jax[tpu]"`, the H100 `pip install jax-cuda13-plugin
jax-cuda13-pjrt` of the version of jax, and XLA's description of the device, a text
proto, named by --h100_config or GNOMON_H100_CONFIG. What is missing is skipped, with
the reason. A compilation is no measurement: it shows that the compiler accepts the
kernel, and what memory it takes. Passes are counted, not measured: the bytes of what
each fusion, kernel and copy of the program is given and gives, over those of the first
input. That is all that can move through memory when nothing stays in a cache. A kernel
that goes over its inputs again counts as it says in its cost estimate; on GPUs none has
one. A kernel that is told at run time to read nothing counts as one that reads, and
branches of conditions are left out. `needed` are the passes of reading every input once
and writing every result once; with --xla, `by_xla` are those of what XLA makes of the
definition.
"""

import argparse
import collections
import os
import re
import sys
from pathlib import Path
from typing import Any

# Before jax is imported: these describe the chips that libtpu compiles for.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
from _timing import environment, table, write
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from gnomon.kernels.cases import Case, cases, nbytes

TARGETS = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "h100": "1x1x1"}
COLUMNS = {
    "op": "",
    "shape": "",
    "dtype": "",
    "passes": ".2f",
    "by_xla": ".2f",
    "needed": ".2f",
    "temporary_MiB": ".2f",
    "kernels": "",
    "result": "",
}


def device(target: str, h100_config: str | None) -> Any:
    """The device to compile for.

    Raises:
      RuntimeError: with the reason why there is none.
    """
    options = {}
    if target == "h100":
        if not h100_config:
            raise RuntimeError("--h100_config or GNOMON_H100_CONFIG is not given")
        options["target_config"] = Path(h100_config).read_text()
    platform = "cuda" if target == "h100" else "tpu"
    key = "topology" if platform == "cuda" else "topology_name"
    topology = topologies.get_topology_desc(
        platform=platform, **{key: TARGETS[target]}, **options
    )
    return topology.devices[0]


def check(case: Case, implementation: str, device: Any) -> dict[str, Any]:
    """Compiles one call; a table row that says what came of it."""
    first = case.inputs[0]
    row = {
        "op": case.op,
        "shape": case.shape,
        "dtype": str(first.dtype),
        "needed": case.bytes_needed / nbytes(first),
    }
    try:
        compiled = compile_for(device, case, implementation)
    except ValueError as error:
        if "does not support this call" not in str(error):
            raise
        return row | {"result": f"xla: {str(error).split(': ', 1)[1].split('. ')[0]}"}
    program, memory = compiled.as_text(), compiled.memory_analysis()
    return row | {
        "result": "compiled",
        "temporary_MiB": memory.temp_size_in_bytes / 2**20,
        "passes": bytes_moved(program) / nbytes(first),
        "kernels": len(re.findall(r"custom_call_target=\"(?:tpu|mosaic)", program)),
    }


def compile_for(device: Any, case: Case, implementation: str) -> Any:
    """One call, compiled for a device."""
    sharding = SingleDeviceSharding(device)
    inputs = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x in case.inputs
    ]
    return case.jit(implementation).lower(*inputs).compile()


# One array of a program's text, with its layout; S(n) is a memory on the chip.
ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
# One line of it: what it gives, its operation, and what it is given.
LINE = re.compile(r"^ *(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*?)\)(?:,|$)")
# What a kernel says of itself.
ESTIMATE = re.compile(r'"bytes_accessed":"(\d+)"')
# Operations that move nothing themselves.
FREE = {
    "parameter",
    "constant",
    "bitcast",
    "tuple",
    "get-tuple-element",
    "conditional",
    "copy-done",
    "slice-done",
    "optimization-barrier",
}


def bytes_moved(program: str) -> int:
    """Bytes that the entry computation of a compiled program is given and gives."""
    entry = program[program.index("\nENTRY ") :].split("\n}", 1)[0]
    sizes: dict[str, list[int]] = collections.defaultdict(list)
    # The same with arrays that are on the chip already: a kernel's estimate knows none.
    wholes: dict[str, int] = collections.defaultdict(int)
    total = 0
    for line in entry.splitlines()[1:]:
        match = LINE.match(re.sub(r"/\*.*?\*/", "", line))
        if match is None:
            continue
        name, result, operation, operands = match.groups()
        arrays = ARRAY.findall(result)
        sizes[name] = [array_bytes(*array) for array in arrays]
        wholes[name] = sum(array_bytes(*array[:2]) for array in arrays)
        if operation in FREE:
            continue
        if operation == "slice-start":
            # It gives its operand, the slice, on the chip or not, and a context.
            total += array_bytes(*arrays[1][:2])
            continue
        # An asynchronous copy gives its operand and a context beside what it copies.
        given = sizes[name][:1] if operation.endswith("-start") else sizes[name]
        taken = re.findall(r"%([\w.-]+)", operands)
        total += sum(given) + sum(sum(sizes[operand]) for operand in taken)
        estimate = ESTIMATE.search(line) if operation == "custom-call" else None
        if estimate is not None:
            once = wholes[name] + sum(wholes[operand] for operand in taken)
            total += max(0, int(estimate.group(1)) - once)
    return total


def array_bytes(dtype: str, shape: str, layout: str = "") -> int:
    """Bytes of an array in the device's memory, none of one in a memory on the chip."""
    digits = re.search(r"\d+", dtype)
    bits = int(digits.group()) if digits else 8
    count = 1
    for extent in filter(None, shape.split(",")):
        count *= int(extent)
    return 0 if "S(" in layout else count * bits // 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--h100_config", default=os.environ.get("GNOMON_H100_CONFIG"))
    parser.add_argument("--ops", nargs="+", help="only operations of these names")
    parser.add_argument("--shapes", nargs="+", help="only shapes of these names")
    parser.add_argument("--xla", action="store_true", help="count XLA's passes too")
    parser.add_argument("--output", type=Path, help="a JSON file for the tables")
    flags = parser.parse_args()
    failed = 0
    record: dict[str, Any] = {}
    for target in flags.targets:
        try:
            chip = device(target, flags.h100_config)
        # What a plugin that is not installed raises differs from plugin to plugin.
        except Exception as error:
            print(f"\n{target}: skipped: {str(error).splitlines()[0]}")
            continue
        rows = []
        for case in cases():
            if flags.ops and case.op not in flags.ops:
                continue
            if flags.shapes and case.shape not in flags.shapes:
                continue
            try:
                rows.append(check(case, "gpu" if target == "h100" else "tpu", chip))
                if flags.xla:
                    program = compile_for(chip, case, "xla").as_text()
                    rows[-1]["by_xla"] = bytes_moved(program) / nbytes(case.inputs[0])
            except Exception as error:
                failed += 1
                reason = f"FAILED: {str(error).splitlines()[0][:100]}"
                rows.append({"op": case.op, "shape": case.shape, "result": reason})
        print(f"\n{target}: {chip.device_kind}, jax {jax.__version__}")
        print(table(rows, COLUMNS))
        record[target] = {"device": chip.device_kind, "rows": rows}
    if flags.output is not None:
        about = environment()
        kept = {name: about[name] for name in ("command", "date", "versions")}
        write(flags.output, kept | record)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
