"""One step of training and one of evaluation, as pure functions of a trial's state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.experiments.config.accumulation import parts_in
from gnomon.experiments.config.resolve import arguments, resolve
from gnomon.experiments.config.spikes import skips, spikes_in
from gnomon.experiments.trial.accumulation import Look, Objective, accumulated, whole
from gnomon.experiments.trial.bits import per_byte
from gnomon.experiments.trial.optimizer import Hypers, learning_rate, make_optimizer
from gnomon.experiments.trial.precision import narrow, widen
from gnomon.experiments.trial.preflight import check_task
from gnomon.experiments.trial.skipping import SKIP, kept_where
from gnomon.experiments.trial.spikes import judged
from gnomon.models import functional
from gnomon.models.examples import by_example
from gnomon.optimizers import apply_fused

Batch = Mapping[str, jax.Array]
NEVER = -1


class TrainState(NamedTuple):
    """All that a trial carries from step to step.

    Attributes:
      step: int32, steps taken.
      params: the model's parameters, a nested dict.
      stats: the model's other variables (batch statistics), a nested dict.
      opt_state: the optimizer's state.
      key: the trial's random key; step t draws from ``fold_in(key, t)``.
      window: sums of the metrics since they were last read, and ``count``.
      diverged_at: int32, the first step whose loss was not finite, or -1.
      probes: what the probes carry from step to step; empty when they are off.
      spikes: what is carried of loss spikes; empty when none are looked for.
    """

    step: jax.Array
    params: Any
    stats: Any
    opt_state: Any
    key: jax.Array
    window: dict[str, jax.Array]
    diverged_at: jax.Array
    probes: dict[str, Any]
    spikes: Any = ()


class Parts(NamedTuple):
    """What a static config names.

    Attributes:
      config: the config.
      model: its model, as `gnomon.models.functional` gives it.
      task: ``(apply, batch) -> (loss, metrics)``; it may have ``weight``, see
        `gnomon.experiments.trial.accumulation`.
    """

    config: Mapping
    model: Any
    task: Callable


def parts_of(config: Mapping, bytes_per_unit: float | None = None) -> Parts:
    """Resolves the model and the task of a static config.

    Args:
      config: the config.
      bytes_per_unit: as its data set says; with it the task gives bits a byte too.
    """
    spec = config["model"]
    model = functional(resolve(spec["name"]), **arguments(spec))
    task = resolve(config["task"])
    # A model that keeps documents apart has a loss that does so too, if there is one.
    separator = spec.get("separator")
    if separator is not None and hasattr(task, "within"):
        task = task.within(separator)
    if bytes_per_unit is not None:
        task = per_byte(task, bytes_per_unit)
    return Parts(config, model, task)


def forward(
    parts: Parts,
    params: Any,
    stats: Any,
    batch: Batch,
    *,
    train: bool,
    key: jax.Array | None = None,
) -> tuple[jax.Array, tuple]:
    """The loss of a batch, with the metrics, the new statistics and the outputs."""
    new_stats, outputs = stats, None

    def apply(inputs):
        nonlocal new_stats, outputs
        outputs, new_stats = parts.model.apply(
            params, stats, inputs, train=train, key=key
        )
        return outputs

    loss, metrics = parts.task(apply, by_example(batch))
    metrics = check_task(parts.config["task"], loss, metrics)
    return loss, (metrics, new_stats, outputs)


def objective(parts: Parts, state: TrainState, batch: Batch) -> Objective:
    """The loss of a batch as the step from a state sees it, at any parameters."""

    def loss_fn(params, stats, batch, key):
        return forward(parts, params, stats, batch, train=True, key=key)

    key = jax.random.fold_in(state.key, state.step)
    count = parts_in(parts.config)
    if count == 1:
        return whole(loss_fn, state.stats, batch, key)
    weight = getattr(parts.task, "weight", None)
    return accumulated(loss_fn, state.stats, batch, key, parts=count, weight=weight)


def train_step(
    parts: Parts,
    state: TrainState,
    batch: Batch,
    hypers: Hypers,
    look: Look = lambda outputs: None,
) -> tuple[TrainState, Any, Any]:
    """One step of training.

    Args:
      parts: what the config names.
      state: the state before the step; its ``step`` is t, from 0.
      batch: the examples of the step.
      hypers: the trial's traced numbers.
      look: what is asked of the model's outputs, which are not kept themselves.

    Returns:
      The state after the step, the gradients of the loss, and what was asked, with a
      leading axis over micro-batches where the config has any.
    """
    config = parts.config
    sought = objective(parts, state, batch)
    before = widen(config, state.params)
    loss, metrics, stats, grads, looked = sought.take(before, look)
    spikes, skip = state.spikes, None
    if settings := spikes_in(config):
        found = judged(settings, spikes, state.step, loss, grads)
        spikes, skip = found.memory, found.spike if skips(config) else None
    params, opt_state = apply_fused(
        make_optimizer(config, hypers),
        grads,
        state.opt_state,
        before,
        value=loss,
        grad=grads,
        value_fn=sought.value,
        grad_fn=sought.grad,
        obj_fn=sought.value,
        **({} if skip is None else {SKIP: skip}),
    )
    params = narrow(config, params, jax.random.fold_in(state.key, state.step))
    seen = {"loss": loss, **metrics, "count": jnp.ones((), jnp.float32)}
    schedule = learning_rate(config, hypers)
    if schedule is not None:
        seen["learning_rate"] = schedule(state.step)
    window = jax.tree.map(jnp.add, state.window, seen)
    first = (state.diverged_at == NEVER) & ~jnp.isfinite(loss)
    if skip is not None:  # the optimizer has kept its own state
        old = state.params, state.stats, state.window
        params, stats, window = kept_where(skip, old, (params, stats, window))
        first &= ~skip
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        stats=stats,
        opt_state=opt_state,
        key=state.key,
        window=window,
        diverged_at=jnp.where(first, state.step, state.diverged_at),
        probes=state.probes,
        spikes=spikes,
    )
    return new_state, grads, looked


def evaluation(parts: Parts, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """The loss and the metrics of a validation batch, means over it.

    Where the task says of how many terms (its ``weight``), that is the ``count``.
    """
    loss, (metrics, *_) = forward(parts, state.params, state.stats, batch, train=False)
    found = {"loss": loss, **metrics}
    if hasattr(parts.task, "weight"):
        found["count"] = parts.task.weight(batch)
    return found
