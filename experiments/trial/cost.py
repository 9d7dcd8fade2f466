"""What a program costs: FLOPs of a step, bytes of memory."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from gnomon.experiments.config.resolve import resolve
from gnomon.experiments.config.trials import split
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.abstract import batch_shapes, on_shapes, trace
from gnomon.experiments.trial.operations import flops_in
from gnomon.experiments.trial.program import make_program


def flops_of(model: Mapping[str, Any], batch: int, shape: tuple[int, ...]) -> float:
    """Training FLOPs of a step: three forward passes of a model that counts its own.

    Args:
      model: as a config has it, its class under ``name``.
      batch: examples a step.
      shape: of an example, ``(length,)`` for tokens.

    Example:
      >>> model = {"name": "gnomon.models.TransformerLM", "width": 32, "depth": 2}
      >>> print(f"{flops_of(model, batch=16, shape=(64,)):.4g}")
      2.517e+08
    """
    kwargs = {key: value for key, value in dict(model).items() if key != "name"}
    return 3.0 * batch * float(resolve(model["name"]).forward_flops(shape, **kwargs))


def flops_per_step(config: Mapping, dataset: Dataset) -> float:
    """Training FLOPs of one step of one trial: three forward passes.

    A backward pass costs twice its forward pass. A model class that has
    ``forward_flops(shape, **kwargs)`` counts its own; for any other model the forward
    pass is counted by XLA.
    """
    model = resolve(config["model"]["name"])
    batch = batch_shapes(dataset.train, config["batch"])
    if hasattr(model, "forward_flops"):
        inputs = next(iter(batch.values())).shape[1:]
        if "tokens" in batch:
            inputs = (inputs[0] - 1,)
        return flops_of(config["model"], config["batch"], inputs)
    program = make_program(split(config)[0], dataset.bytes_per_unit)
    state = trace(config, dataset)
    analysis = jax.jit(program.evaluate).lower(state, batch).cost_analysis()
    return 3.0 * float((analysis or {}).get("flops", 0.0))


_BARE: Mapping[str, Any] = {
    "optimizer": {"name": "optax.identity"},
    "clip": {"name": ""},
    "parameter_groups": [],
    "decay_mask": [],
}


def optimizer_flops(config: Mapping, dataset: Dataset) -> float:
    """FLOPs of one step of one trial beyond its loss and gradient: the optimizer's own.

    They are those of the step less those of one whose updates are the gradients
    (`optax.identity`, with no chain around it), both by the rule of
    `gnomon.experiments.trial.operations`: further evaluations of the loss and of its
    gradient that an optimizer asks for count as they are, layers of a scan and
    iterations on a matrix each time.
    """

    def flops(config: Mapping) -> float:
        program, *arrays = on_shapes(config, dataset)
        return flops_in(jax.make_jaxpr(program.step)(*arrays).jaxpr)

    return flops(config) - flops({**config, **_BARE})


class Memory(NamedTuple):
    """Bytes XLA plans for one call of a program, on one device.

    Attributes:
      arguments: what it is given.
      outputs: what it returns.
      temporaries: what it needs on the way.
      aliased: arguments whose memory the outputs take.
    """

    arguments: int
    outputs: int
    temporaries: int
    aliased: int

    @property
    def total(self) -> int:
        """All that is there at once."""
        return self.arguments + self.outputs + self.temporaries - self.aliased


def memory_of(compiled: Any) -> Memory:
    """What XLA's own analysis says of a program; zeros where it says nothing."""
    plan = compiled.memory_analysis()
    if plan is None:
        return Memory(0, 0, 0, 0)
    return Memory(
        plan.argument_size_in_bytes,
        plan.output_size_in_bytes,
        plan.temp_size_in_bytes,
        plan.alias_size_in_bytes,
    )


def memory_budget() -> int:
    """Bytes a program may plan for on the first device: 80 % of what is free."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return int(0.8 * free)
