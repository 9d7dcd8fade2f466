"""What training needs before it runs: bytes on a device, FLOPs, a share of its peak."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gnomon.experiments.config.devices import size_of
from gnomon.experiments.console.table import table
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.abstract import of_one_lane, on_shapes
from gnomon.experiments.trial.cost import flops_per_step, optimizer_flops
from gnomon.experiments.trial.lanes import Lanes
from gnomon.experiments.trial.mesh import whole_leaves
from gnomon.experiments.trial.results import units_per_step
from gnomon.models import parameter_count

PEAKS = {
    "NVIDIA B200": 2250e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
}
"""Dense bfloat16 FLOPs a second, as published, by how `jax.Device.device_kind` begins.

The first that fits counts. ``--peak_flops`` says it for any other device.
"""


class Needs(NamedTuple):
    """What a dispatch of one chunk needs, all bytes on one device.

    Attributes:
      state: bytes of the optimizer's state a parameter, over all devices.
      held: bytes of what the program is given: states, batches, numbers.
      activations: bytes of the program's temporaries beside it.
      flops: training FLOPs of one step of one trial, as results count them.
      rule: six FLOPs a parameter and token, or example.
      counted: FLOPs of the whole step, the optimizer's with it, by XLA, which counts
        the body of a loop (scanned layers) once.
      mfu: ``flops`` of all lanes over what the devices could do in the time; None where
        no peak is known.
      whole: bytes that a rule with a name leaves whole on every device.
      optimizer: FLOPs of one step of one trial that are the optimizer's own
        (`gnomon.experiments.trial.cost.optimizer_flops`), beside ``flops``.
    """

    state: float
    held: int
    activations: int
    flops: float
    rule: float
    counted: float
    mfu: float | None
    whole: int
    optimizer: float = 0.0


def peak_of(kind: str) -> float:
    """The peak of a kind of device in FLOPs a second; 0 where it is not known.

    >>> peak_of("NVIDIA H100 80GB HBM3"), peak_of("cpu")
    (989000000000000.0, 0)
    """
    return next((flops for name, flops in PEAKS.items() if kind.startswith(name)), 0)


def needs_of(
    config: Mapping,
    dataset: Dataset,
    lanes: Lanes,
    *,
    count: int,
    seconds: float,
    peak: float = 0.0,
) -> Needs:
    """What a compiled chunk needs.

    Args:
      config: of one of its trials.
      dataset: its data.
      lanes: its program.
      count: how many trials run side by side.
      seconds: that one step of all of them takes.
      peak: FLOPs a second of one device; 0 looks it up in `PEAKS`.
    """
    alone = of_one_lane(lanes.state)
    size = parameter_count(alone.params)
    flops = flops_per_step(config, dataset)
    peak = peak or peak_of(jax.devices()[0].device_kind)
    # Lanes lie side by side on devices of their own, or one trial on a mesh.
    devices = max(size_of(config), lanes.place.spread)
    share = flops * count / (seconds * peak * devices) if peak else None
    return Needs(
        state=_bytes(alone.opt_state) / size,
        held=lanes.memory.arguments,
        activations=lanes.memory.temporaries,
        flops=flops,
        rule=6.0 * size * units_per_step(config, dataset),
        counted=_counted(config, dataset),
        mfu=share,
        whole=sum(size for _, size in whole_leaves(config, alone)),
        optimizer=optimizer_flops(config, dataset),
    )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _counted(config: Mapping, dataset: Dataset) -> float:
    program, *arrays = on_shapes(config, dataset)
    analysis = jax.jit(program.step).lower(*arrays).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def needs_table(named: Sequence[tuple[str, Needs]]) -> str:
    """The needs of groups, by name, as a table.

    Example:
      >>> needs = Needs(8.0, 2**21, 2**20, 6e9, 5.9e9, 6.1e9, None, 0, 1.2e8)
      >>> for line in needs_table([("a", needs)]).splitlines():
      ...     print(line[33:])
      activations  FLOPs/step      6ND   by XLA  MFU  optimizer's
      -----------  ----------  -------  -------  ---  -----------
            1 MiB     6.0e+09  5.9e+09  6.1e+09    -      1.2e+08
    """
    head = ("group", "state/param", "on a device", "activations", "FLOPs/step", "6ND")
    rows = [
        (
            name,
            f"{needs.state:.1f} B",
            f"{needs.held / 2**20:.0f} MiB",
            f"{needs.activations / 2**20:.0f} MiB",
            f"{needs.flops:.1e}",
            f"{needs.rule:.1e}",
            f"{needs.counted:.1e}",
            "-" if needs.mfu is None else f"{needs.mfu:.1%}",
            f"{needs.optimizer:.1e}",
        )
        for name, needs in named
    ]
    lines = [table([(*head, "by XLA", "MFU", "optimizer's"), *rows], words=1)]
    lines += [
        f"{name}: vectors, and what config.mesh.data does not divide, are whole on"
        f" every device: {needs.whole / 2**20:.1f} MiB"
        for name, needs in named
        if needs.whole
    ]
    return "\n".join(lines)
