"""One form of ``inner`` in all wrappers, and no wrong sign is built."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers

# What is built from a direction and its learning rate apart.
APART = {"hyperball", "norm_loss", "project_radial"}
# What hands on updates of either sign, as a link of a chain would.
EITHER = {"quantize_moments", "bucket_leaves", "per_layer"}
PARAMS = {"layers_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]])}}
GRADS = {"layers_0": {"kernel": jnp.array([[0.3, 1.0], [-2.0, 0.1]])}}


def first_update(optimizer):
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    return np.asarray(updates["layers_0"]["kernel"])


def without_rate(wrapper):
    return {} if wrapper.name in APART else {"learning_rate": None}


def test_a_function_and_a_direction_give_the_same(wrapper):
    function = wrapper.build(inner=optax.adam)
    direction = wrapper.build(inner=optax.scale_by_adam())
    np.testing.assert_allclose(
        first_update(function), first_update(direction), rtol=1e-5, atol=1e-6
    )
    if wrapper.name not in APART:
        complete = wrapper.build(inner=optax.adam(0.1), learning_rate=None)
        np.testing.assert_allclose(
            first_update(complete), first_update(direction), rtol=1e-6
        )


def test_a_direction_that_descends_is_refused(wrapper):
    rates = (0.1, optax.linear_schedule(0.0, 0.1, 10))  # the second starts at zero
    for inner in (optax.adam(rate) for rate in rates):
        with pytest.raises(ValueError, match=r"inner descends.*optax.scale_by_adam"):
            wrapper.build(inner=inner)


def test_an_optimizer_that_climbs_is_refused(wrapper):
    def climbs(learning_rate):
        return optax.chain(optax.scale_by_adam(), optax.scale(learning_rate))

    with pytest.raises(ValueError, match="inner climbs"):
        wrapper.build(inner=climbs)
    if wrapper.name in APART | EITHER:
        return
    for inner in (optax.scale_by_adam(), optax.trace(0.9), optax.identity()):
        with pytest.raises(ValueError, match=r"inner climbs.*learning_rate"):
            wrapper.build(inner=inner, learning_rate=None)


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
        wrapper.build(inner=inner, **without_rate(wrapper))

    def traced(rate):
        inner = optax.chain(optax.scale_by_adam(), optax.scale(rate))
        return first_update_traced(wrapper.build(inner=inner, **without_rate(wrapper)))

    def first_update_traced(optimizer):
        return optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)[0]

    jax.eval_shape(jax.vmap(traced), jnp.ones(2))


def test_signs_are_found_under_a_trace(wrapper):
    def build(x):
        wrapper.build(inner=optax.adam(0.1))
        return x

    for transform in (jax.jit, jax.vmap):
        with pytest.raises(ValueError, match="inner descends"):
            transform(build)(jnp.ones(2))


def test_what_is_no_optimizer_is_refused(wrapper):
    with pytest.raises(TypeError, match="inner is a float"):
        wrapper.build(inner=0.1)
    with pytest.raises(TypeError, match=r"MultiSteps.*\.gradient_transformation\(\)"):
        wrapper.build(inner=optax.MultiSteps(optax.sgd(0.1), 2))
    if "inner_kwargs" in wrapper.parameters:
        with pytest.raises(ValueError, match="inner_kwargs"):
            wrapper.build(inner=optax.scale_by_adam(), inner_kwargs={"b1": 0.5})


def test_preconditioner_that_descends_is_refused():
    with pytest.raises(ValueError, match="preconditioner descends"):
        optimizers.sania(optax.adam(0.1))
