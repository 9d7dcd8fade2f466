"""Learning rates by width: the published tables, and what is the same at the base."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon.optimizers import learning_rate_factors, mup_rule, standard_rule
from gnomon_contract import Row, Verified
from gnomon_contract.layers import base, descending


def wider_adamp(*, learning_rate, b1, b2, weight_decay):
    """As in a network that is twice as wide as the one it was tuned for."""

    def halved(params):
        def half(w):
            shape = (size if size % 2 else size // 2 for size in w.shape)
            return jax.ShapeDtypeStruct(tuple(shape), w.dtype)

        return jax.tree.map(half, params)

    def times(rate):
        """A product in float32, as a decay times a learning rate is."""
        return jnp.asarray(rate, "float32") * jnp.asarray(weight_decay, "float32")

    def scheduled(count):
        return times(learning_rate(count))

    decay = scheduled if callable(learning_rate) else times(learning_rate)
    inner = optimizers.adamp(learning_rate, b1=b1, b2=b2)
    return optimizers.mup(inner, halved, independent_decay=decay)


def growing_factors(params, **s):
    """A number a leaf, of every layer of a stack."""
    factors = learning_rate_factors(params, base, mup_rule("adam"), **s)
    return jax.tree.map(lambda w, x: np.full(np.shape(w), x), params, factors)


def narrowed_initialization(params, **s):
    """From a base model with values: not all layers' alike."""
    smaller = jax.tree.map(
        lambda w, x: w[tuple(map(slice, x.shape))], params, base(params)
    )
    return optimizers.mup_initialization(params, smaller, **s)


ROWS = (
    Row(
        "mup",
        wider_adamp,
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-5},
    ),
)
GIVEN = {"scale_by_width": dict(rule=mup_rule())}
COMPLEX = {
    "scale_by_width": lambda: optax.chain(
        optax.adam(0.1), optimizers.scale_by_width(lambda params: params, mup_rule())
    ),
    "mup": lambda: optimizers.mup(optax.adam(0.1), lambda params: params),
    "standard_parameterization": lambda: optimizers.standard_parameterization(
        optax.adam(0.1), lambda params: params
    ),
}
VERIFIED = {"mup": Verified(""), "standard_parameterization": Verified("")}
LAYERS = {
    "scale_by_width": lambda **s: descending(
        optimizers.scale_by_width(base, mup_rule("adam"), **s)
    ),
    "mup": lambda i, **s: optimizers.mup(i, base, **s),
    "standard_parameterization": lambda i, **s: optimizers.standard_parameterization(
        i, base, **s
    ),
    "learning_rate_factors": growing_factors,
    "mup_initialization": narrowed_initialization,
    "width_growth": None,  # the factors are functions of it
}

HEADS = 2


def network(width, depth=3):
    """A leaf of every kind; two layers are stacked, the number of heads is fixed."""
    shapes = {
        "embed": {"embedding": (11, width)},
        "attention": {
            "query": {"kernel": (width, HEADS, width // HEADS), "bias": (HEADS, width)},
            "out": {"kernel": (HEADS, width // HEADS, width)},
        },
        "conv": {"kernel": (3, 3, width, 2 * width)},
        "first": {"kernel": (5, width), "bias": (width,)},
        "blocks": {"query": {"kernel": (depth, width, HEADS, width)}},
        "blocks_norm": {"scale": (depth, width)},
        "head": {"kernel": (width, 7), "bias": (7,)},
        "temperature": (),
    }
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, "float32"),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def by_role(vector, first, hidden, output):
    return {
        "embed": {"embedding": first},
        "attention": {
            "query": {"kernel": hidden, "bias": vector},
            "out": {"kernel": hidden},
        },
        "conv": {"kernel": hidden},
        "first": {"kernel": first, "bias": vector},
        "blocks": {"query": {"kernel": hidden}},
        "blocks_norm": {"scale": vector},
        "head": {"kernel": output, "bias": 1},
        "temperature": 1,
    }


# Rates at four times the width, m = 4, of (vector, input, hidden, output): Tensor
# Programs V, table 3 and table 8 for muP; Everett et al., 2024, for standard.
QUARTER, HALF = Fraction(1, 4), Fraction(1, 2)
TABLE = {
    "muP Adam": (mup_rule("adam"), (1, 1, QUARTER, QUARTER)),
    "muP SGD": (mup_rule("sgd"), (4, 4, 1, QUARTER)),
    "muP Adam, multiplier": (
        mup_rule("adam", output_multiplier=True),
        (1, 1, QUARTER, 1),
    ),
    "muP SGD, multiplier": (mup_rule("sgd", output_multiplier=True), (4, 4, 1, 4)),
    "standard Adam": (standard_rule("adam"), (1, 1, QUARTER, QUARTER)),
    "standard SGD": (standard_rule("sgd"), (2, 2, HALF, QUARTER)),
    "standard Adam, unaligned": (
        standard_rule("adam", alignment="none"),
        (1, 1, HALF, HALF),
    ),
    "standard SGD, unaligned": (
        standard_rule("sgd", alignment="none"),
        (2, 2, 1, HALF),
    ),
}


@pytest.mark.parametrize(("rule", "factors"), TABLE.values(), ids=TABLE)
def test_factors_of_every_kind_of_leaf(rule, factors):
    found = learning_rate_factors(network(32), network(8), rule, stacked="^blocks")
    assert found == jax.tree.map(float, by_role(*factors))


@pytest.mark.parametrize(("rule", "factors"), TABLE.values(), ids=TABLE)
def test_all_factors_are_one_at_the_base_width_and_at_another_depth(rule, factors):
    deep, base = network(8, depth=5), network(8)
    found = learning_rate_factors(deep, base, rule, stacked="^blocks")
    assert set(jax.tree.leaves(found)) == {1.0}


def test_a_stack_of_query_kernels_has_to_be_declared():
    """Its layers are an axis like any other until a rule says what they are."""
    growth = optimizers.width_growth(network(32), network(8))
    assert growth["blocks"]["query"]["kernel"].role != "hidden"
    growth = optimizers.width_growth(network(32), network(8), stacked="^blocks")
    assert growth["blocks"]["query"]["kernel"] == ("hidden", 4.0, 4.0)


def test_a_base_that_does_not_fit_is_refused():
    base = network(8)
    del base["first"]["bias"]
    with pytest.raises(ValueError, match=r"base: 'first/bias' has shape None there"):
        optimizers.width_growth(network(32), base)
    with pytest.raises(ValueError, match=r"kind='adan' is not one of"):
        mup_rule("adan")
    with pytest.raises(ValueError, match=r"alignment='half' is not one of"):
        standard_rule("sgd", alignment="half")


def arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes
    )


def trained(optimizer, params, steps=3):
    @jax.jit
    def step(params, state):
        grads = jax.tree.map(lambda w: w - 0.5, params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_at_the_base_width_it_is_the_optimizer_itself_to_the_bit(kind):
    params = arrays(network(8))
    inner = optimizers.adamp if kind == "adam" else optimizers.sgdp
    optimizer = inner(0.03, weight_decay=0.1)
    wrapped = optimizers.mup(optimizer, network(8), kind=kind)
    jax.tree.map(
        np.testing.assert_array_equal,
        trained(wrapped, params),
        trained(optimizer, params),
    )


def test_decay_inside_shrinks_with_width_and_decay_outside_does_not():
    """Of a weight without a gradient, after one step at four times the width."""
    base = {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}
    w = {"kernel": jnp.ones((8, 8))}
    still = {"kernel": jnp.zeros((8, 8))}

    def left(optimizer):
        updates, _ = optimizer.update(still, optimizer.init(w), w)
        return 1 + updates["kernel"][0, 0]

    # A still weight is one that AdamP decays less, by wd_ratio.
    decay = {"weight_decay": 0.5, "wd_ratio": 1.0}
    inside = optimizers.mup(optimizers.adamp(0.1, **decay), base)
    outside = optimizers.mup(optax.sgd(0.1), base, independent_decay=0.1 * 0.5)
    masked = optimizers.mup(
        optax.sgd(0.1), base, independent_decay=0.1 * 0.5, weight_decay_mask=False
    )
    np.testing.assert_allclose(left(inside), 1 - 0.1 * 0.5 / 4, rtol=1e-6)
    np.testing.assert_allclose(left(outside), 1 - 0.1 * 0.5, rtol=1e-6)
    assert left(masked) == 1


def test_decay_follows_the_schedule_and_stays_bfloat16():
    base = {"kernel": jax.ShapeDtypeStruct((2, 2), "bfloat16")}
    w = {"kernel": jnp.ones((8, 8), "bfloat16")}

    def rate(count):
        return jnp.where(count == 0, 0.5, 1.0)

    optimizer = optimizers.mup(
        optimizers.descend(rate), base, independent_decay=lambda t: 0.25 * rate(t)
    )
    state, seen = optimizer.init(w), []
    for _ in range(2):
        updates, state = optimizer.update(w, state, w)
        seen.append(float(updates["kernel"][0, 0]))
        assert updates["kernel"].dtype == jnp.bfloat16
    # -rate (1 / 4 + 0.25), every number a sum of powers of two.
    assert seen == [-0.25, -0.5]


def test_initial_variances():
    """Hidden 1 / fan-in, readout 1 / fan-in squared, inputs and gains as in the base,
    whatever the model itself draws; leaves that have not grown are not touched."""
    base, wide = arrays(network(8)), arrays(network(32), seed=1)
    started = optimizers.mup_initialization(wide, base, stacked="^blocks")

    def rms(x):
        return np.sqrt(np.mean(np.square(x)))

    ratios = jax.tree.map(lambda w, small: rms(w) / rms(small), started, base)
    wanted = by_role(vector=1, first=1, hidden=HALF, output=QUARTER)
    wanted["temperature"] = ratios["temperature"]
    wanted["head"]["bias"] = ratios["head"]["bias"]
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, float(e), rtol=1e-5), ratios, wanted
    )
    assert started["temperature"] is wide["temperature"]
    assert started["head"]["bias"] is wide["head"]["bias"]
    zeros = jax.tree.map(jnp.zeros_like, wide)
    nothing = optimizers.mup_initialization(zeros, base)
    assert not any(leaf.any() for leaf in jax.tree.leaves(nothing))
