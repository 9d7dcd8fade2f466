"""The program of one trial as pure functions: init, step, evaluate.

Seeds and hyperparameters are arguments, not constants, so that one compilation
serves every trial of a group and `jax.vmap` runs them side by side. Nothing here
knows about files, devices or other trials.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gnomon.experiments.config.spikes import spikes_in
from gnomon.experiments.trial import probes
from gnomon.experiments.trial.optimizer import Hypers, learning_rate, make_optimizer
from gnomon.experiments.trial.precision import narrow, widen
from gnomon.experiments.trial.spikes import memory
from gnomon.experiments.trial.step import (
    NEVER,
    Batch,
    Parts,
    TrainState,
    evaluation,
    forward,
    parts_of,
    train_step,
)
from gnomon.experiments.trial.tiers import tiers_of


class Program(NamedTuple):
    """A trial's pure functions.

    Attributes:
      init: ``(seed, hypers, batch) -> state``; the batch gives shapes alone.
      step: ``(state, batch, hypers) -> state``.
      evaluate: ``(state, batch) -> metrics``, means over the batch.
      probes: by tier, ``(state, batch, hypers) -> (state, record)``; the free tier
        takes the step, the others leave all but their own memory as it is.
    """

    init: Callable[[jax.Array, Hypers, Batch], TrainState]
    step: Callable[[TrainState, Batch, Hypers], TrainState]
    evaluate: Callable[[TrainState, Batch], dict[str, jax.Array]]
    probes: Mapping[str, Callable[[TrainState, Batch, Hypers], tuple]]


def make_program(config: Mapping, bytes_per_unit: float | None = None) -> Program:
    """Builds the program of a static config (`config.trials.split`).

    Args:
      config: the config.
      bytes_per_unit: that of its data set.
    """
    parts = parts_of(config, bytes_per_unit)

    def step(state, batch, hypers):
        return train_step(parts, state, batch, hypers)[0]

    return Program(
        partial(initial_state, parts),
        step,
        partial(evaluation, parts),
        tiers_of(parts),
    )


def initial_state(
    parts: Parts, seed: jax.Array, hypers: Hypers, batch: Batch
) -> TrainState:
    """The state before the first step; the batch gives shapes alone."""
    config = parts.config
    init_key, key = jax.random.split(jax.random.key(seed))
    params, stats = parts.model.init(init_key)
    params = narrow(config, params)
    _, (metrics, *_) = jax.eval_shape(
        lambda p, s, b: forward(parts, p, s, b, train=True, key=key),
        params,
        stats,
        batch,
    )
    names = ["loss", *metrics]
    if learning_rate(config, hypers) is not None:
        names.append("learning_rate")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=stats,
        opt_state=make_optimizer(config, hypers).init(widen(config, params)),
        key=key,
        window={name: jnp.zeros((), jnp.float32) for name in [*names, "count"]},
        diverged_at=jnp.full((), NEVER, jnp.int32),
        probes=probes.memory(params, probes.settings_of(config)),
        spikes=memory(spikes_in(config), params),
    )
