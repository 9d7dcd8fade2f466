"""A trial's optimizer and its schedule, from its config and its traced numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from gnomon.experiments.config.changes import at
from gnomon.experiments.config.rates import peaks, scheduled
from gnomon.experiments.config.resolve import build
from gnomon.experiments.config.spikes import skips
from gnomon.experiments.trial.chain import chained
from gnomon.experiments.trial.preflight import same_shapes, traced_schedule
from gnomon.experiments.trial.sharded_update import sharded
from gnomon.experiments.trial.skipping import skipping
from gnomon.optimizers.mechanisms.layered import layered

Hypers = Mapping[str, jax.Array]
"""A trial's traced numbers by dotted path."""


def filled_in(config: Mapping, hypers: Hypers, section: str) -> Any:
    """A section of a static config, a copy, with its traced numbers put back."""
    given = config.get(section) or {}
    given = list(given) if isinstance(given, list | tuple) else dict(given)
    result: Any = jax.tree.map(lambda leaf: leaf, given)

    for path, value in hypers.items():
        if path.startswith(section + "."):
            _, *parents, last = path.split(".")
            at(result, parents)[last] = value
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
    """Builds a trial's optimizer, and its chain, from config and traced numbers.

    Those of other packages know nothing of stacked layers; where that matters they are
    shown the layers one by one, see :func:`gnomon.optimizers.per_layer`.
    """
    spec = filled_in(config, hypers, "optimizer")

    def make(spec: Mapping) -> optax.GradientTransformation:
        made = build(scheduled(spec, lambda peak: _schedule(config, hypers, peak)))
        return made if spec["name"].startswith("gnomon.") else layered(made)

    optimizer = chained(
        spec,
        make,
        clip=filled_in(config, hypers, "clip"),
        groups=filled_in(config, hypers, "parameter_groups"),
        decay_mask=config.get("decay_mask") or (),
    )
    optimizer = same_shapes(optimizer, spec["name"])
    return sharded(skipping(optimizer) if skips(config) else optimizer, config)
