"""The tiers of probes as functions of a trial's state, beside its step."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gnomon.experiments.config.accumulation import parts_in
from gnomon.experiments.config.chain import masked
from gnomon.experiments.trial import probes
from gnomon.experiments.trial.accumulation import first_part
from gnomon.experiments.trial.optimizer import filled_in, learning_rate
from gnomon.experiments.trial.sharded_update import on_device
from gnomon.experiments.trial.step import Parts, forward, objective, train_step
from gnomon.optimizers import observed


def tiers_of(parts: Parts) -> Mapping[str, Callable]:
    """By tier, ``(state, batch, hypers) -> (state, record)``.

    The free tier takes the step, the others leave all but their own memory as it is.
    """
    config = parts.config
    layers = probes.settings_of(config)["layers"]

    def activations(state, batch):
        key = jax.random.fold_in(state.key, state.step)
        found = {}

        def apply(inputs):
            arguments = state.params, state.stats, inputs
            found.update(parts.model.activations(*arguments, train=True, key=key))
            return parts.model.apply(*arguments, train=True, key=key)[0]

        parts.task(apply, batch)
        return found

    def rate(state, hypers):
        schedule = learning_rate(config, hypers)
        return jnp.asarray(jnp.nan if schedule is None else schedule(state.step))

    def optimizer(hypers):
        spec = filled_in(config, hypers, "optimizer")
        if rules := config.get("decay_mask"):
            spec, _ = masked(spec, rules)
        found = probes.keywords(spec)
        # Where groups have their own, no formula holds for all.
        return found | {"name": None} if config.get("parameter_groups") else found

    def free(state, batch, hypers):
        with observed() as seen:
            new_state, grads, sizes = train_step(
                parts, state, batch, hypers, probes.sizes
            )
        opt_state = on_device(config, new_state.opt_state)
        spec = optimizer(hypers)
        return new_state, probes.told(opt_state, seen) | probes.free(
            state.params,
            new_state.params,
            grads,
            sizes,
            carried=state.probes,
            learning_rate=rate(state, hypers),
            optimizer=spec,
            layers=layers,
            said=probes.balanced(opt_state, seen, spec),
        )

    def cheap(state, batch, hypers):
        del hypers
        batch = first_part(batch, parts_in(config))
        key = jax.random.fold_in(state.key, state.step)

        def loss_fn(params, part):
            return forward(parts, params, state.stats, part, train=True, key=key)[0]

        carried, record = probes.cheap(
            loss_fn,
            state.params,
            batch,
            activations(state, batch),
            state.probes,
            layers,
        )
        return state._replace(probes=carried), record

    def full(state, batch, hypers):
        look = probes.Look(
            loss_fn=objective(parts, state, batch).value,
            params=state.params,
            opt_state=on_device(config, state.opt_state),
            learning_rate=rate(state, hypers),
            optimizer=optimizer(hypers),
        )
        return state, probes.full(look)

    return {"free": free, "cheap": cheap, "full": full}
