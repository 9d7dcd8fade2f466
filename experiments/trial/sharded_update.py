"""The optimizer's step where its state lies: each device moves its own shard.

Told nothing, XLA may gather the whole state on every device to compute an update that
every device then has whole. Here gradients, parameters, state and what becomes of them
are held to the cut of the state, so that only new parameters are gathered, by the
devices that want them whole. State on the host comes to the device for the step.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import NamedSharding

from gnomon.experiments.config.devices import named_rule, size_of
from gnomon.experiments.trial.mesh import device_mesh, specs_of, state_specs_of
from gnomon.optimizers.mechanisms.fused import FusedTransformation


def on_device(config: Mapping, state: Any) -> Any:
    """The optimizer's state for a computation; as it is unless it lies elsewhere."""
    if not _on_host(config):
        return state
    return jax.device_put(state, jax.memory.Space.Device)


def _at_rest(config: Mapping, state: Any) -> Any:
    if not _on_host(config):
        return state
    return jax.device_put(state, jax.memory.Space.Host)


def _on_host(config: Mapping) -> bool:
    return bool((config.get("mesh") or {}).get("state_memory"))


def sharded(
    optimizer: optax.GradientTransformationExtraArgs, config: Mapping
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that steps where `config.mesh` has its state.

    It computes what it computed, and is the same object where the mesh says nothing of
    the state.

    Args:
      optimizer: the optimizer.
      config: the trial's config.
    """
    cut = named_rule(config) is not None and size_of(config) > 1
    # On shapes alone, and where the devices are not, nothing lies anywhere.
    cut = cut and size_of(config) <= len(jax.devices())
    if not cut and not _on_host(config):
        return optimizer

    def held(tree: Any, params: Any, specs: Callable = state_specs_of) -> Any:
        if not cut or tree is None:
            return tree
        mesh, cuts = device_mesh(config), specs(config, params)

        def hold(path: tuple, leaf: Any) -> Any:
            if path not in cuts:  # None, or no array
                return leaf
            sharding = NamedSharding(mesh, cuts[path])
            return jax.lax.with_sharding_constraint(leaf, sharding)

        return jax.tree_util.tree_map_with_path(hold, tree)

    def stepping(function: Callable) -> Callable:
        def step(grads, state, params=None, **extra):
            given = [held(tree, params) for tree in (grads, params)]
            if "grad" in extra:
                extra["grad"] = held(extra["grad"], params)
            moved, state = function(
                given[0], on_device(config, state), given[1], **extra
            )
            # In two steps: moved where the state is, then as the parameters lie.
            moved = held(held(moved, params), params, specs_of)
            return moved, _at_rest(config, state)

        return step

    plain = optax.GradientTransformationExtraArgs(
        optimizer.init, stepping(optimizer.update)
    )
    if isinstance(optimizer, FusedTransformation):
        return FusedTransformation(plain, stepping(optimizer.apply))
    return plain
