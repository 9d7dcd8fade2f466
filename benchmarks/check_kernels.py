"""Compiles every kernel ahead of time for chips that need not be here.

    python benchmarks/check_kernels.py --targets v5e v6e h100

TPUs need `pip install "jax[tpu]"`, the H100 `pip install jax-cuda13-plugin
jax-cuda13-pjrt` of the version of jax, and XLA's description of the device, a text
proto, named by --h100_config or GNOMON_H100_CONFIG. What is missing is skipped, with
the reason. A compilation is no measurement: it shows that the compiler accepts the
kernel, and what memory and how many array passes it accounts for.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

# Before jax is imported: these describe the chips that libtpu compiles for.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
from _kernel_cases import Case, cases
from _timing import table
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

TARGETS = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "h100": "1x1x1"}
COLUMNS = {
    "op": "",
    "shape": "",
    "dtype": "",
    "passes": ".2f",
    "needed": "",
    "temporary_MiB": ".2f",
    "gigaflop": ".3f",
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
        "needed": case.passes,
    }
    sharding = SingleDeviceSharding(device)
    inputs = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x in case.inputs
    ]
    try:
        lowered = case.jit(implementation).lower(*inputs)
    except ValueError as error:
        if "does not support this call" not in str(error):
            raise
        return row | {"result": f"xla: {str(error).split(': ', 1)[1].split('. ')[0]}"}
    compiled = lowered.compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    row |= {"result": "compiled", "temporary_MiB": memory.temp_size_in_bytes / 2**20}
    if "bytes accessed" in cost:
        passes = cost["bytes accessed"] / case.bytes_needed * case.passes
        row |= {"passes": passes, "gigaflop": cost.get("flops", 0.0) / 1e9}
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--h100_config", default=os.environ.get("GNOMON_H100_CONFIG"))
    parser.add_argument("--ops", nargs="+", help="only operations of these names")
    flags = parser.parse_args()
    failed = 0
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
            try:
                rows.append(check(case, "gpu" if target == "h100" else "tpu", chip))
            except Exception as error:
                failed += 1
                reason = f"FAILED: {str(error).splitlines()[0][:100]}"
                rows.append({"op": case.op, "shape": case.shape, "result": reason})
        print(f"\n{target}: {chip.device_kind}, jax {jax.__version__}")
        print(table(rows, COLUMNS))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
