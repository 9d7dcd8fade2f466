"""The tiers of probes as functions of a trial's state, beside its step."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gnomon.experiments.trial import probes
from gnomon.experiments.trial.optimizer import filled_in, learning_rate
from gnomon.experiments.trial.sharded_update import on_device
from gnomon.experiments.trial.step import Parts, train_loss, train_step
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
        return probes.keywords(filled_in(config, hypers, "optimizer"))

    def free(state, batch, hypers):
        with observed() as seen:
            new_state, grads, outputs = train_step(parts, state, batch, hypers)
        kept = on_device(config, new_state.opt_state)
        return new_state, probes.told(kept, seen) | probes.free(
            state.params,
            new_state.params,
            grads,
            outputs,
            carried=state.probes,
            learning_rate=rate(state, hypers),
            optimizer=optimizer(hypers),
            layers=layers,
        )

    def cheap(state, batch, hypers):
        del hypers
        carried, record = probes.cheap(
            lambda params, part: train_loss(parts, state, params, part)[0],
            state.params,
            batch,
            activations(state, batch),
            state.probes,
            layers,
        )
        return state._replace(probes=carried), record

    def full(state, batch, hypers):
        look = probes.Look(
            loss_fn=lambda params: train_loss(parts, state, params, batch)[0],
            params=state.params,
            opt_state=on_device(config, state.opt_state),
            learning_rate=rate(state, hypers),
            optimizer=optimizer(hypers),
        )
        return state, probes.full(look)

    return {"free": free, "cheap": cheap, "full": full}
