"""A trial's optimizer and its schedule, from its config and its traced numbers."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import jax
import optax

from gnomon.experiments.config.rates import peaks, scheduled
from gnomon.experiments.config.resolve import build
from gnomon.experiments.trial.preflight import same_shapes, traced_schedule
from gnomon.experiments.trial.sharded_update import sharded
from gnomon.optimizers.mechanisms.layered import layered

Hypers = Mapping[str, jax.Array]
"""A trial's traced numbers by dotted path."""


def filled_in(config: Mapping, hypers: Hypers, section: str) -> dict:
    """A section of a static config with its traced numbers put back."""
    result: dict = jax.tree.map(lambda leaf: leaf, dict(config[section]))
    for path, value in hypers.items():
        if path.startswith(section + "."):
            _, *parents, last = path.split(".")
            reduce(lambda node, key: node[key], parents, result)[last] = value
    return result


def learning_rate(config: Mapping, hypers: Hypers) -> Callable | None:
    """The schedule of a trial, or None when its optimizer takes no learning rate."""
    rates = peaks(filled_in(config, hypers, "optimizer"))
    return next((_schedule(config, hypers, peak) for peak in rates.values()), None)


def _schedule(config: Mapping, hypers: Hypers, peak: Any) -> Callable:
    spec = filled_in(config, hypers, "schedule")
    return traced_schedule(
        spec["name"], lambda: build(spec, peak=peak, steps=hypers["steps"])
    )


def make_optimizer(
    config: Mapping, hypers: Hypers
) -> optax.GradientTransformationExtraArgs:
    """Builds a trial's optimizer from its config and its traced numbers.

    Those of other packages know nothing of stacked layers; where that matters they are
    shown the layers one by one, see :func:`gnomon.optimizers.per_layer`.
    """
    spec = filled_in(config, hypers, "optimizer")
    optimizer = build(scheduled(spec, lambda peak: _schedule(config, hypers, peak)))
    if not spec["name"].startswith("gnomon."):
        optimizer = layered(optimizer)
    return sharded(same_shapes(optimizer, spec["name"]), config)
