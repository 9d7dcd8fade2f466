"""The program of one trial as pure functions: init, step, evaluate.

Seeds and hyperparameters are arguments, not constants, so that one compilation
serves every trial of a group and `jax.vmap` runs them side by side. Nothing here
knows about files, devices or other trials.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.experiments.config.resolve import build, resolve
from gnomon.experiments.trial import probes
from gnomon.experiments.trial.preflight import check_task, same_shapes, traced_schedule
from gnomon.models import functional
from gnomon.optimizers import apply_fused
from gnomon.optimizers.mechanisms.layered import layered

Batch = Mapping[str, jax.Array]
Hypers = Mapping[str, jax.Array]
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


def _fill(config: Mapping, hypers: Hypers, section: str) -> dict:
    """A section of a static config with its traced numbers put back."""
    result: dict = jax.tree.map(lambda leaf: leaf, dict(config[section]))
    for path, value in hypers.items():
        if path.startswith(section + "."):
            _, *parents, last = path.split(".")
            reduce(lambda node, key: node[key], parents, result)[last] = value
    return result


def learning_rate(config: Mapping, hypers: Hypers) -> Callable | None:
    """The schedule of a trial, or None when its optimizer takes no learning rate."""
    peak = _fill(config, hypers, "optimizer").get("learning_rate")
    if peak is None:
        return None
    schedule = _fill(config, hypers, "schedule")
    return traced_schedule(
        schedule["name"], lambda: build(schedule, peak=peak, steps=hypers["steps"])
    )


def make_optimizer(
    config: Mapping, hypers: Hypers
) -> optax.GradientTransformationExtraArgs:
    """Builds a trial's optimizer from its config and its traced numbers.

    Those of other packages know nothing of stacked layers; where that matters they are
    shown the layers one by one, see :func:`gnomon.optimizers.per_layer`.
    """
    spec = _fill(config, hypers, "optimizer")
    schedule = learning_rate(config, hypers)
    provided = {} if schedule is None else {"learning_rate": schedule}
    optimizer = build(spec, **provided)
    if not spec["name"].startswith("gnomon."):
        optimizer = layered(optimizer)
    return same_shapes(optimizer, spec["name"])


def make_program(config: Mapping) -> Program:
    """Builds the program of a static config (`config.trials.split`)."""
    spec = {key: value for key, value in config["model"].items() if key != "name"}
    model = functional(resolve(config["model"]["name"]), **spec)
    task = resolve(config["task"])
    settings = probes.settings_of(config)

    def forward(params, stats, batch, *, train, key=None):
        new_stats, outputs = stats, None

        def apply(inputs):
            nonlocal new_stats, outputs
            outputs, new_stats = model.apply(
                params, stats, inputs, train=train, key=key
            )
            return outputs

        loss, metrics = task(apply, batch)
        metrics = check_task(config["task"], loss, metrics)
        return loss, (metrics, new_stats, outputs)

    def init(seed, hypers, batch):
        init_key, key = jax.random.split(jax.random.key(seed))
        params, stats = model.init(init_key)
        _, (metrics, *_) = jax.eval_shape(
            lambda p, s, b: forward(p, s, b, train=True, key=key), params, stats, batch
        )
        names = ["loss", *metrics]
        if learning_rate(config, hypers) is not None:
            names.append("learning_rate")
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            stats=stats,
            opt_state=make_optimizer(config, hypers).init(params),
            key=key,
            window={name: jnp.zeros((), jnp.float32) for name in [*names, "count"]},
            diverged_at=jnp.full((), NEVER, jnp.int32),
            probes=probes.memory(params, settings),
        )

    def train_loss(state, params, batch):
        key = jax.random.fold_in(state.key, state.step)
        return forward(params, state.stats, batch, train=True, key=key)

    def activations(state, batch):
        key = jax.random.fold_in(state.key, state.step)
        found = {}

        def apply(inputs):
            arguments = state.params, state.stats, inputs
            found.update(model.activations(*arguments, train=True, key=key))
            return model.apply(*arguments, train=True, key=key)[0]

        task(apply, batch)
        return found

    def advance(state, batch, hypers):
        def loss_fn(params):
            return train_loss(state, params, batch)

        def value_fn(params):
            return loss_fn(params)[0]

        (loss, (metrics, stats, outputs)), grads = jax.value_and_grad(
            loss_fn, has_aux=True
        )(state.params)
        params, opt_state = apply_fused(
            make_optimizer(config, hypers),
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
        schedule = learning_rate(config, hypers)
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

    def step(state, batch, hypers):
        return advance(state, batch, hypers)[0]

    def evaluate(state, batch):
        loss, (metrics, *_) = forward(state.params, state.stats, batch, train=False)
        return {"loss": loss, **metrics}

    def rate(state, hypers):
        schedule = learning_rate(config, hypers)
        return jnp.asarray(jnp.nan if schedule is None else schedule(state.step))

    def optimizer(hypers):
        return probes.keywords(_fill(config, hypers, "optimizer"))

    def free(state, batch, hypers):
        new_state, grads, outputs = advance(state, batch, hypers)
        return new_state, probes.free(
            state.params,
            new_state.params,
            grads,
            outputs,
            carried=state.probes,
            learning_rate=rate(state, hypers),
            optimizer=optimizer(hypers),
            layers=settings["layers"],
        )

    def cheap(state, batch, hypers):
        del hypers
        carried, record = probes.cheap(
            lambda params, part: train_loss(state, params, part)[0],
            state.params,
            batch,
            activations(state, batch),
            state.probes,
            settings["layers"],
        )
        return state._replace(probes=carried), record

    def full(state, batch, hypers):
        look = probes.Look(
            loss_fn=lambda params: train_loss(state, params, batch)[0],
            params=state.params,
            opt_state=state.opt_state,
            learning_rate=rate(state, hypers),
            optimizer=optimizer(hypers),
        )
        return state, probes.full(look)

    tiers = {"free": free, "cheap": cheap, "full": full}
    return Program(init, step, evaluate, tiers)
