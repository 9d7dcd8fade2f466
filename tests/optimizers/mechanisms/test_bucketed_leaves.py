"""Small leaves joined into vectors: the same numbers in fewer launches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import adamp, apply_fused, bucket_leaves

LAYERS = {"bucket_leaves": lambda i: bucket_leaves(i, max_size=12)}


def tree(blocks):
    """A narrow network: per block a kernel, a bias, a scale, one of them bfloat16."""
    generator = np.random.default_rng(0)

    def draw(*shape, dtype="float32"):
        return jnp.asarray(generator.normal(size=shape)).astype(dtype)

    layers = {
        f"block_{i}": {
            "kernel": draw(3, 4),
            "bias": draw(4),
            "scale": draw(4, dtype="bfloat16"),
        }
        for i in range(blocks)
    }
    return {**layers, "head": draw(40, 50), "temperature": draw(), "empty": draw(0)}


def vectors_alone(leaf):
    return leaf.ndim < 2


@pytest.mark.parametrize(
    ("joins", "fused"), [(None, True), (vectors_alone, False)], ids=["all", "vectors"]
)
def test_results_are_those_of_the_inner_optimizer(joins, fused):
    """To the bit; by rows, AdamP keeps its kernels to themselves."""
    rules = [(".*", ())] if joins is None else None
    inner = adamp(0.01, weight_decay=0.1, rules=rules)
    params = tree(2)

    def run(optimizer):
        def step(carry, scale):
            params, state = carry
            grads = jax.tree.map(lambda w: jnp.cos(w * scale.astype(w.dtype)), params)
            if fused:
                return apply_fused(optimizer, grads, state, params), None
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, jnp.arange(1.0, 4.0))[0][0]

    joined = bucket_leaves(inner, max_size=100, joins=joins)
    got, want = jax.jit(lambda: (run(joined), run(inner)))()
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_labels_keep_leaves_apart():
    """So that a mask can tell the joined biases, which must not decay, from kernels."""

    def label(params):
        return jax.tree.map(lambda w: "decay" if w.ndim > 1 else "", params)

    def mask(joined):
        return joined._replace(
            leaves=jax.tree.map(lambda w: w.ndim > 1, joined.leaves),
            vectors={name: name.endswith("decay") for name in joined.vectors},
        )

    params = tree(2)
    optimizer = bucket_leaves(
        optax.chain(optax.add_decayed_weights(0.5, mask), optax.trace(0.0)),
        max_size=100,
        label=label,
    )
    state = optimizer.init(params)
    joined = jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "trace"))[-1].trace
    assert sorted(joined.vectors) == ["bfloat16", "float32", "float32/decay"]
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, state, params)
    for got, w in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        wanted = 0.5 * w if w.ndim > 1 else jnp.zeros_like(w)
        np.testing.assert_array_equal(got, wanted)


def test_three_hundred_leaves_are_a_few_launches():
    """Kernels in the program for a TPU: one a leaf, or one a bucket and one a head."""
    inner = adamp(0.01, implementation="tpu", rules=[(".*", ())])

    def launches(optimizer, params):
        state = jax.eval_shape(optimizer.init, params)
        step = jax.jit(functools.partial(apply_fused, optimizer))
        lowered = step.trace(params, state, params).lower(lowering_platforms=("tpu",))
        return lowered.as_text().count("@tpu_custom_call")

    few = tree(1)
    assert launches(inner, few) == sum(leaf.size > 0 for leaf in jax.tree.leaves(few))
    assert launches(bucket_leaves(inner, max_size=100), tree(100)) == 3


def test_a_missing_gradient_is_refused_by_what_to_do():
    params = tree(1)
    optimizer = bucket_leaves(optax.sgd(0.1), max_size=100)
    grads = {**params, "temperature": None}
    with pytest.raises(ValueError, match="pass zeros"):
        optimizer.update(grads, optimizer.init(params), params)
