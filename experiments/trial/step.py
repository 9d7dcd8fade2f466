"""One step of training and one of evaluation, as pure functions of a trial's state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.experiments.config.resolve import resolve
from gnomon.experiments.trial.optimizer import Hypers, learning_rate, make_optimizer
from gnomon.experiments.trial.preflight import check_task
from gnomon.models import functional
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
    """

    step: jax.Array
    params: Any
    stats: Any
    opt_state: Any
    key: jax.Array
    window: dict[str, jax.Array]
    diverged_at: jax.Array
    probes: dict[str, Any]


class Parts(NamedTuple):
    """What a static config names.

    Attributes:
      config: the config.
      model: its model, as `gnomon.models.functional` gives it.
      task: ``(apply, batch) -> (loss, metrics)``.
    """

    config: Mapping
    model: Any
    task: Callable


def parts_of(config: Mapping) -> Parts:
    """Resolves the model and the task of a static config."""
    spec = {key: value for key, value in config["model"].items() if key != "name"}
    model = functional(resolve(config["model"]["name"]), **spec)
    return Parts(config, model, resolve(config["task"]))


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

    loss, metrics = parts.task(apply, batch)
    metrics = check_task(parts.config["task"], loss, metrics)
    return loss, (metrics, new_stats, outputs)


def train_loss(
    parts: Parts, state: TrainState, params: Any, batch: Batch
) -> tuple[jax.Array, tuple]:
    """`forward` as the step from a state sees it, at any parameters."""
    key = jax.random.fold_in(state.key, state.step)
    return forward(parts, params, state.stats, batch, train=True, key=key)


def train_step(
    parts: Parts, state: TrainState, batch: Batch, hypers: Hypers
) -> tuple[TrainState, Any, Any]:
    """One step of training.

    Args:
      parts: what the config names.
      state: the state before the step; its ``step`` is t, from 0.
      batch: the examples of the step.
      hypers: the trial's traced numbers.

    Returns:
      The state after the step, the gradients of the loss, and the model's outputs.
    """

    def loss_fn(params):
        return train_loss(parts, state, params, batch)

    def value_fn(params):
        return loss_fn(params)[0]

    (loss, (metrics, stats, outputs)), grads = jax.value_and_grad(
        loss_fn, has_aux=True
    )(state.params)
    params, opt_state = apply_fused(
        make_optimizer(parts.config, hypers),
        grads,
        state.opt_state,
        state.params,
        value=loss,
        grad=grads,
        value_fn=value_fn,
        grad_fn=jax.grad(value_fn),
        obj_fn=value_fn,
    )
    seen = {"loss": loss, **metrics, "count": jnp.ones((), jnp.float32)}
    schedule = learning_rate(parts.config, hypers)
    if schedule is not None:
        seen["learning_rate"] = schedule(state.step)
    first = (state.diverged_at == NEVER) & ~jnp.isfinite(loss)
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        stats=stats,
        opt_state=opt_state,
        key=state.key,
        window=jax.tree.map(jnp.add, state.window, seen),
        diverged_at=jnp.where(first, state.step, state.diverged_at),
        probes=state.probes,
    )
    return new_state, grads, outputs


def evaluation(parts: Parts, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """The loss and the metrics of a validation batch, means over it."""
    loss, (metrics, *_) = forward(parts, state.params, state.stats, batch, train=False)
    return {"loss": loss, **metrics}
