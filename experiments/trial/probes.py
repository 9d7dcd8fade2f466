"""The probes of a training run: which, when, and as functions of its program.

    config.dynamics = dict(free=True, cheap_every=50, full_every=500)

- ``free``: at the steps that are logged, what follows from the step's own gradient and
  update, and what the optimizer says of its step, as ``diagnostics/<name>``, see
  `gnomon.optimizers.diagnostics`. The step is taken by a second compiled program that
  also returns them.
- ``cheap_every``: every so many steps the gradient noise scale, spectral norms, the
  spectra of small layers' gradients, and activations, on the batch of the step, or the
  first micro-batch of it.
- ``full_every``: every so many steps the curvature of the loss, on that batch too.
- ``layers``: the regex that groups parameters (`gnomon.dynamics.layers.layers_of`); by
  default each module is a layer.

All that is left out, or zero, is off. The rows get the keys of `gnomon.dynamics.names`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging as log

from gnomon import dynamics
from gnomon.dynamics import curvature
from gnomon.experiments.config.resolve import resolve
from gnomon.models import LazyLogits
from gnomon.optimizers import Balance, Observations, balance, diagnostics

SETTINGS: dict[str, Any] = dict(free=False, cheap_every=0, full_every=0, layers="")
ADAM = (optax.adam, optax.adamw)  # divide by what `adam_denominator` computes
TOLD = "diagnostics/"  # begins the keys of what an optimizer says
GROUPS = 8  # the most groups that a batch is cut into for its noise


class Look(NamedTuple):
    """What a full probe may look at.

    Attributes:
      loss_fn: from parameters to the loss of the step's batch.
      params: the parameters before the step.
      opt_state: the optimizer's state before the step.
      learning_rate: of the step; NaN when the optimizer takes none.
      optimizer: the optimizer's keywords, those of its signature included, and the
        function itself as ``name``.
    """

    loss_fn: Callable[[Any], jax.Array]
    params: Any
    opt_state: Any
    learning_rate: jax.Array
    optimizer: Mapping[str, Any]


def settings_of(config: Mapping) -> dict[str, Any]:
    """The settings of a config, with what it leaves out.

    >>> settings_of({"dynamics": {"free": True}})
    {'free': True, 'cheap_every': 0, 'full_every': 0, 'layers': ''}
    """
    return SETTINGS | dict(config.get("dynamics") or {})


def due(settings: Mapping[str, Any], step: int, logging: bool) -> list[str]:
    """The tiers that are due at a step, the one that takes the step last.

    >>> due(SETTINGS | {"free": True, "cheap_every": 10}, step=20, logging=True)
    ['cheap', 'free']
    """
    tiers = [
        tier
        for tier in ("cheap", "full")
        if settings[f"{tier}_every"] and step % settings[f"{tier}_every"] == 0
    ]
    return [*tiers, *(["free"] if settings["free"] and logging else [])]


def memory(params: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the probes of a trial carry from step to step; empty when they are off."""
    carried: dict[str, Any] = {}
    if settings["free"]:
        carried["start"] = params
    if settings["cheap_every"]:
        layers = dynamics.layers_of(params, settings["layers"])
        carried["vectors"] = dynamics.start_vectors(params, layers)
    return carried


def keywords(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of an optimizer, those it was not given at their defaults.

    Its function is among them as ``name``.
    """
    function = resolve(spec["name"])
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        parameters = []
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults | {**spec, "name": function}


def _number(value: Any) -> Any:
    """The value if it is a number or an array, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | jax.Array):
        return None
    return value


def _equilibrium(
    motion: dynamics.Motion,
    optimizer: Mapping[str, Any],
    rate: jax.Array,
    said: Balance | None = None,
) -> dict[str, jax.Array]:
    """The prediction from what the optimizer said, or from what optax's docs say."""
    if said is not None:
        found = dynamics.equilibrium(
            motion, 1.0, said.shrinkage, said.momentum, adaptive=True
        )
    else:
        rule = dynamics.rule_of(optimizer["name"], optimizer)
        if rule is None:
            return {}
        decay, momentum = (
            _number(optimizer.get(x)) for x in (rule.decay, rule.momentum)
        )
        if decay is None or momentum is None:
            return {}
        found = dynamics.equilibrium(
            motion, rate, decay, momentum, adaptive=rule.adaptive
        )
    return {
        "equilibrium_angle": found.angle[0],
        "angle_ratio": found.angle_ratio,
        "equilibrium_norm": found.norm,
        "norm_ratio": found.norm_ratio,
    }


def free(
    before: Any,
    after: Any,
    grads: Any,
    sizes: dynamics.Logits,
    *,
    carried: Mapping[str, Any],
    learning_rate: jax.Array,
    optimizer: Mapping[str, Any],
    layers: str,
    said: Balance | None = None,
) -> dict[str, jax.Array]:
    """Measures a step that was taken.

    Args:
      before: the parameters before the step.
      after: the parameters after it; the update is their difference, so what rounding
        took from it is not in it.
      grads: the gradients.
      sizes: of the model's outputs on the step's batch, or on each micro-batch of it.
      carried: the probes' memory.
      learning_rate: of the step.
      optimizer: its keywords.
      layers: the regex of the grouping.
      said: what the optimizer said of where it holds the weights, if it did.

    Returns:
      By quantity, arrays [layers + 1] or scalars.
    """

    def subtract(new: jax.Array, old: jax.Array) -> jax.Array:
        wide = jnp.promote_types(new.dtype, jnp.float32)
        return new.astype(wide) - old.astype(wide)

    motion = dynamics.layer_motion(
        before,
        jax.tree.map(subtract, after, before),
        grads,
        start=carried["start"],
        learning_rate=learning_rate,
        layers=layers,
    )
    return {
        **motion._asdict(),
        **_equilibrium(motion, optimizer, learning_rate, said),
        "logit_norm": jnp.mean(sizes.norm),
        "logit_maximum": jnp.max(sizes.maximum),
    }


def balanced(
    opt_state: Any, seen: Observations, optimizer: Mapping[str, Any]
) -> Balance | None:
    """Where an optimizer says that it holds the weights; None, and why not, in the log.

    Args:
      opt_state: its state after the step.
      seen: what was seen while it ran.
      optimizer: its keywords, of one of another package that a formula is known for.
    """
    try:
        return balance(seen, opt_state)
    except LookupError as error:
        if dynamics.rule_of(optimizer["name"], optimizer) is None:
            log.info("no angle at equilibrium is predicted: %s", error)
        return None


def sizes(outputs: Any) -> dynamics.Logits:
    """How large a model's outputs are, those that are not yet computed too."""
    if not isinstance(outputs, LazyLogits):
        return dynamics.logits(outputs)
    rows = outputs.rows(jax.vmap(jax.vmap(dynamics.logits)))
    return dynamics.Logits(jnp.mean(rows.norm), jnp.max(rows.maximum))


def told(opt_state: Any, seen: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What the optimizer says of a step: its state, and what was seen while it ran.

    What is no single number, such as the step sizes of several layers, is left out.
    """
    found = {**diagnostics(opt_state), **seen}
    return {TOLD + name: x for name, x in found.items() if jnp.ndim(x) == 0}


def cheap(
    loss_fn: Callable[[Any, Any], jax.Array],
    params: Any,
    batch: Mapping[str, jax.Array],
    activations: Mapping[str, jax.Array],
    carried: Mapping[str, Any],
    layers: str,
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """Measures the batch and the weights of a step that is about to be taken.

    Args:
      loss_fn: ``(params, batch) -> loss``.
      params: the parameters.
      batch: the step's batch.
      activations: what the model's modules put out on it, by path.
      carried: the probes' memory.
      layers: the regex of the grouping.

    Returns:
      The new memory, and by quantity arrays [layers + 1] or [layers].
    """
    grouping = dynamics.layers_of(params, layers)
    size = len(next(iter(batch.values())))
    groups = max(n for n in range(1, GROUPS + 1) if size % n == 0)
    compared, grads = dynamics.group_gradients(loss_fn, params, batch, groups)
    noise = dynamics.noise_scale(dynamics.pool(compared, grouping), size // groups)
    norms, vectors = dynamics.spectral_norms(params, carried["vectors"], grouping)
    ranks = dynamics.gradient_ranks(grads, grouping)
    units = dynamics.layer_activations(activations, grouping)
    return {**carried, "vectors": vectors}, {
        "gradient_noise": noise.noise,
        "gradient_signal": noise.signal,
        "noise_scale": noise.scale,
        "noise_scale_error": noise.error,
        "spectral_norm": norms,
        "nuclear_norm": ranks.nuclear_norm,
        "effective_rank": ranks.effective_rank,
        "dead_units": units.dead,
        "activation_maximum": units.maximum,
    }


def sharpness(look: Look) -> dict[str, jax.Array]:
    """The largest eigenvalue of the Hessian, and where it stands to 2 / lr."""
    top = curvature.top_eigenvalues(look.loss_fn, look.params, iterations=16)
    return {
        "sharpness": top.values[0],
        "sharpness_error": top.errors[0],
        "smallest_curvature": top.smallest,
        "edge_ratio": top.values[0] * look.learning_rate / 2,
    }


def preconditioned_sharpness(look: Look) -> dict[str, jax.Array]:
    """The same of the Hessian that Adam sees; nothing for another method.

    A state with a second moment is no proof of it: LAMB and NAdam keep one as well.
    """
    if look.optimizer["name"] not in ADAM or look.optimizer.get("nesterov"):
        return {}
    names = ("b1", "b2", "eps", "eps_root")
    numbers = {name: _number(look.optimizer.get(name)) for name in names}
    given = {name: value for name, value in numbers.items() if value is not None}
    states = jax.tree.leaves(look.opt_state, is_leaf=_is_adam)
    if sum(map(_is_adam, states)) != 1:
        return {}
    top = curvature.top_eigenvalues(
        look.loss_fn,
        look.params,
        iterations=16,
        denominator=curvature.adam_denominator(look.opt_state, **given),
    )
    return {
        "preconditioned_sharpness": top.values[0],
        "preconditioned_edge_ratio": top.values[0] * look.learning_rate / 2,
    }


def _is_adam(node: Any) -> bool:
    return getattr(node, "nu", None) is not None and hasattr(node, "count")


# Further probes join here: from a Look to scalars by quantity.
FULL: dict[str, Callable[[Look], dict[str, jax.Array]]] = {
    "sharpness": sharpness,
    "preconditioned_sharpness": preconditioned_sharpness,
}


def full(look: Look) -> dict[str, jax.Array]:
    """Runs every full probe."""
    found: dict[str, jax.Array] = {}
    for probe in FULL.values():
        found |= probe(look)
    return found


def columns(
    record: Mapping[str, jax.Array], params: Any, settings: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """A record of all lanes as columns of ``metrics.jsonl``."""
    layers = dynamics.layers_of(params, settings["layers"])
    found: dict[str, np.ndarray] = jax.device_get(dict(record))
    own = {name: found.pop(name) for name in list(found) if name.startswith(TOLD)}
    return own | dynamics.named(found, layers.names)
