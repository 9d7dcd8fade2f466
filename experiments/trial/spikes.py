"""Loss spikes as a step sees them: judged, remembered, told.

`gnomon.experiments.config.spikes` says what a spike is. What a trial carries of them is
part of its state: the last losses and gradient norms that were none, by layer the
average norm, and the spikes since a row of metrics was last written.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.dynamics.layers import layers_of, pool
from gnomon.dynamics.motion import leaf_sums

ROOM = 32  # spikes that are kept between two rows of metrics
LAYERS = 8  # layers that a record names
NONE = -1


class Verdict(NamedTuple):
    """What is thought of a step.

    Attributes:
      spike: whether it is a spike.
      memory: what the trial carries on.
    """

    spike: jax.Array
    memory: dict[str, Any]


def memory(settings: Mapping[str, Any] | None, params: Any) -> dict[str, Any]:
    """What a trial carries before its first step; nothing where none are watched."""
    if settings is None:
        return {}
    layers = len(layers_of(params).names)
    window, zero = settings["window"], jnp.zeros((), jnp.int32)

    def zeros(*shape: int) -> jax.Array:
        return jnp.zeros(shape, jnp.float32)

    return {
        "loss": zeros(window),
        "norm": zeros(window),
        "layers": zeros(layers),
        "count": zero,
        "row": zero,
        "first": jnp.full((), NONE, jnp.int32),
        "events": {
            "count": zero,
            "step": jnp.zeros((ROOM,), jnp.int32),
            **{name: zeros(ROOM) for name in ("loss", "loss_bound")},
            **{name: zeros(ROOM) for name in ("norm", "norm_bound")},
            "layers": zeros(ROOM, layers),
            "average": zeros(ROOM, layers),
        },
    }


def judged(
    settings: Mapping[str, Any],
    carried: Mapping[str, Any],
    step: jax.Array,
    loss: jax.Array,
    grads: Any,
) -> Verdict:
    """Judges a step by those before it.

    With :math:`m` and :math:`s` the mean and the standard deviation (of a sample) of
    the last values that were no spikes, :math:`x` is one where not
    :math:`x \\le m + k s`.

    Args:
      settings: ``window``, ``sigma`` and ``patience`` of `config.spikes`.
      carried: the trial's memory.
      step: the step's number, from 0.
      loss: of its batch.
      grads: of the loss.
    """
    squares = pool(leaf_sums(grads).ww, layers_of(grads)).astype(jnp.float32)
    norms, norm = jnp.sqrt(squares[:-1]), jnp.sqrt(squares[-1])
    loss = loss.astype(jnp.float32)
    window = settings["window"]
    filled = jnp.minimum(carried["count"], window)
    enough = filled >= max(2, window // 2)
    loss_bound, norm_bound = (
        jnp.where(enough, _bound(carried[name], filled, settings["sigma"]), jnp.inf)
        for name in ("loss", "norm")
    )
    # Compared so that NaN is above every bound.
    high = ~(loss <= loss_bound) | ~(norm <= norm_bound)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    # Of so many spikes in a row the next is none: a new level begins with it.
    settled = high & finite & (carried["row"] >= settings["patience"])
    spike = (high & ~settled) | ~finite
    count = jnp.where(settled, 0, carried["count"])
    place = count % window

    def put(values: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.where(spike, values, values.at[place].set(value))

    share = 1.0 / (jnp.minimum(count, window - 1) + 1).astype(jnp.float32)
    average = carried["layers"] + share * (norms - carried["layers"])
    events = _with(
        carried["events"],
        spike,
        step=step,
        loss=loss,
        loss_bound=loss_bound,
        norm=norm,
        norm_bound=norm_bound,
        layers=norms,
        average=carried["layers"],
    )
    first = jnp.where(spike & (carried["first"] == NONE), step, carried["first"])
    return Verdict(
        spike,
        {
            "loss": put(carried["loss"], loss),
            "norm": put(carried["norm"], norm),
            "layers": jnp.where(spike, carried["layers"], average),
            "count": jnp.where(spike, count, count + 1),
            "row": jnp.where(spike, carried["row"] + 1, 0),
            "first": first,
            "events": events,
        },
    )


def _bound(values: jax.Array, filled: jax.Array, sigma: float) -> jax.Array:
    there = jnp.arange(len(values)) < filled
    count = filled.astype(jnp.float32)
    mean = jnp.sum(jnp.where(there, values, 0)) / jnp.maximum(count, 1)
    apart = jnp.where(there, values - mean, 0)
    variance = jnp.sum(jnp.square(apart)) / jnp.maximum(count - 1, 1)
    return mean + sigma * jnp.sqrt(variance)


def _with(
    events: Mapping[str, jax.Array], spike: jax.Array, **event: jax.Array
) -> dict[str, jax.Array]:
    """The events with one more, if it is one, and there is room."""
    count = events["count"]
    kept = spike & (count < ROOM)
    place = jnp.minimum(count, ROOM - 1)
    found = {
        name: jnp.where(kept, events[name].at[place].set(value), events[name])
        for name, value in event.items()
    }
    return {**found, "count": count + spike.astype(jnp.int32)}


def told(carried: Mapping[str, Any]) -> dict[str, Any]:
    """What is read of a trial's memory: the events, and the step of the first spike."""
    if not carried:
        return {}
    return {**carried["events"], "first": carried["first"]}


def emptied(carried: Mapping[str, Any], now: Any = True) -> Mapping[str, Any]:
    """The memory once its events are read, if they are ``now``."""
    if not carried:
        return carried
    events = carried["events"]
    count = jnp.where(now, jnp.zeros_like(events["count"]), events["count"])
    return {**carried, "events": {**events, "count": count}}


def records(
    seen: Mapping[str, np.ndarray], names: tuple[str, ...], action: str, ahead: int = 0
) -> list[dict[str, Any]]:
    """What is written of the spikes of one trial.

    Args:
      seen: what `told` gave of it, on the host.
      names: of the layers.
      action: what was done.
      ahead: how many batches the order has jumped over.

    Returns:
      For each spike its ``step``, from 0, its ``batch``, the position in the order of
      the data, and ``action``; ``loss`` and ``gradient_norm``, and above what they were
      a spike; and ``layers``, those whose gradient stood out most, with its norm in
      units of the layer's average.
    """
    total = int(seen["count"])
    found: list[dict[str, Any]] = []
    for at in range(min(total, ROOM)):
        step = int(seen["step"][at])
        record: dict[str, Any] = {"step": step, "batch": step + ahead, "action": action}
        for mine, theirs in (("loss", "loss"), ("gradient_norm", "norm")):
            record[mine] = float(seen[theirs][at])
            bound = float(seen[f"{theirs}_bound"][at])
            if np.isfinite(bound):
                record[f"{mine}_bound"] = bound
        record["layers"] = _outstanding(seen["layers"][at], seen["average"][at], names)
        found.append(record)
    if total > ROOM:
        found[-1]["more"] = total - ROOM
    return found


def _outstanding(
    norms: np.ndarray, average: np.ndarray, names: tuple[str, ...]
) -> dict[str, float]:
    usual = np.where(average > 0, average, 1.0)
    ratios = norms.astype(np.float64) / usual
    order = np.argsort(-np.where(np.isnan(ratios), np.inf, ratios), kind="stable")
    return {names[n]: float(ratios[n]) for n in order[:LAYERS]}
