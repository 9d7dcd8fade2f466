"""What is inside a wrapper: an optimizer or a direction, and no wrong sign is built."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon_contract import collect

EITHER = collect.having("either sign")
PARAMS = {"layers_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]])}}
GRADS = {"layers_0": {"kernel": jnp.array([[0.3, 1.0], [-2.0, 0.1]])}}
REFUSED = {
    "inner": "inner climbs.*gnomon.optimizers.descend",
    "direction": "direction descends.*optax.scale_by_adam",
}


def first_update(optimizer):
    extra = dict(obj_fn=lambda tree: jnp.sum(jnp.cosh(tree["layers_0"]["kernel"])))
    optimizer = optax.with_extra_args_support(optimizer)
    return optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS, **extra)[0]


def of_wrong_sign(wrapper):
    """Of an optimizer in place of a direction, or a direction in that of an optimizer;
    the last of each starts at zero."""
    if wrapper.inside == "direction":
        return [optax.adam(0.1), optax.adam(optax.linear_schedule(0.0, 0.1, 10))]
    rate = optax.linear_schedule(0.0, 0.1, 10)
    rising = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(rate))
    return [optax.scale_by_adam(), optax.trace(0.9), optax.identity(), rising]


def test_a_wrong_sign_is_refused(wrapper):
    for inner in of_wrong_sign(wrapper):
        given = {wrapper.inside: inner}
        if wrapper.name in EITHER:
            wrapper.build(**given)
            continue
        with pytest.raises(ValueError, match=REFUSED[wrapper.inside]):
            wrapper.build(**given)


def test_a_direction_with_descend_is_an_optimizer(wrapper):
    """Of the same numbers as the optimizer, in every leaf of updates and state."""
    direction = optimizers.scale_by_adamp()
    if wrapper.inside == "inner":
        built = [
            wrapper.build(inner=inner)
            for inner in (
                optimizers.adamp(0.1),
                optax.chain(direction, optimizers.descend(0.1)),
            )
        ]
    elif "learning_rate" in wrapper.parameters:  # at the rate one
        turned = optax.chain(optimizers.adamp(1.0), optax.scale(-1.0))
        built = [wrapper.build(direction=d) for d in (turned, direction)]
    else:
        return
    one, other = map(first_update, built)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_cannot_be_told_is_accepted(wrapper):
    def kernels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, w: "somewhere" in str(path), params
        )

    def sam(period):
        return optax.contrib.sam(
            optax.sgd(0.1),
            optax.chain(optax.contrib.normalize(), optax.sgd(0.1)),
            sync_period=period,
        )

    # Up to an adversarial point first; no update at first; nothing but what passes
    # through; a name that is not there.
    inners = [
        *map(sam, (2, 3, 5)),
        optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation(),
        optax.set_to_zero(),
        optax.sgd(0.0),
        optax.masked(optax.sgd(0.1), kernels),
        optimizers.adamp(0.0, rules=[("somewhere", 0)]),
    ]
    for inner in inners:
        wrapper.build(**{wrapper.inside: inner})

    def traced(rate):
        inner = optax.chain(optax.scale_by_adam(), optax.scale(rate))
        return first_update(wrapper.build(**{wrapper.inside: inner}))

    jax.eval_shape(jax.vmap(traced), jnp.ones(2))


def test_signs_are_found_under_a_trace(wrapper):
    if wrapper.name in EITHER:
        return

    def build(x):
        wrapper.build(**{wrapper.inside: of_wrong_sign(wrapper)[0]})
        return x

    for transform in (jax.jit, jax.vmap):
        with pytest.raises(ValueError, match=REFUSED[wrapper.inside]):
            transform(build)(jnp.ones(2))


def test_what_is_no_transform_is_refused(wrapper):
    name = wrapper.inside
    with pytest.raises(TypeError, match=f"{name} is a float"):
        wrapper.build(**{name: 0.1})
    with pytest.raises(TypeError, match=r"MultiSteps.*\.gradient_transformation\(\)"):
        wrapper.build(**{name: optax.MultiSteps(optax.sgd(0.1), 2)})
    with pytest.raises(TypeError, match=rf"{name} is the function adam,.*: call it"):
        wrapper.build(**{name: optax.adam})
    for old in ("learning_rate", "inner_kwargs"):
        if old not in wrapper.parameters:
            with pytest.raises(TypeError, match=f"unexpected keyword argument '{old}'"):
                wrapper.build(**{old: 0.1})


def test_preconditioner_that_descends_is_refused():
    with pytest.raises(ValueError, match="preconditioner descends"):
        optimizers.sania(optax.adam(0.1))
