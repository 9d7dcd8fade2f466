"""FAdam against its formulas, and the identities that set it apart from Adam."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import pallas as pl

from gnomon.optimizers import apply_fused, fadam, scale_by_fadam
from gnomon_contract import Row, Verified
from gnomon_contract.layers import descending

ROWS = (
    Row(
        "fadam",
        fadam,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-8,
            "weight_decay": 1e-4,
            "clip": 1.0,
            "p": 0.5,
        },
    ),
    Row(
        "fadam_port",
        fadam,
        {"learning_rate": 0.05, "b2": 0.99, "weight_decay": 1e-4, "p": 0.6},
        {"eps_rule": "max", "eps_to_2p": False, "clip_rule": "scale"},
    ),
)
LAYERS = {
    "fadam": lambda **s: fadam(0.1, weight_decay=0.1, clip=0.3, **s),
    "scale_by_fadam": lambda **s: descending(scale_by_fadam(clip=0.3, **s)),
}

SHAPES = {
    "dense": {"kernel": (6, 4), "bias": (4,)},
    "conv": {"kernel": (3, 2, 4)},
    "embed": {"embedding": (8, 3)},
    "query": {"kernel": (4, 2, 3)},
    "stack": {"kernel": (3, 4, 2), "bias": (3, 5)},
    "temperature": (),
}
VERIFIED = {"fadam": Verified("A02", "NumPy", 1e-10)}


def random_tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: scale * rng.standard_normal(shape),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def gradients(steps, scale=0.1):
    """Gradients whose size differs from step to step and from leaf to leaf."""
    trees = []
    for t in range(steps):
        tree = random_tree(100 + t, scale)
        leaves, treedef = jax.tree.flatten(tree)
        sizes = [(1 + i) * (1 + np.sin(t)) for i in range(len(leaves))]
        trees.append(
            treedef.unflatten([s * x for s, x in zip(sizes, leaves, strict=True)])
        )
    return trees


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def follow(optimizer, params, grads):
    """Applies a stack of gradients; returns the last parameters and state."""

    def step(carry, grad):
        params, state = carry
        updates, state = optimizer.update(grad, state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = (params, optimizer.init(params))
    return jax.jit(lambda carry, grads: jax.lax.scan(step, carry, grads)[0])(
        carry, grads
    )


def assert_trees_close(actual, expected, **tolerance):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, **tolerance), actual, expected
    )


class Oracle:
    """One tensor of the published algorithm, line by line in NumPy."""

    def __init__(self, w, lr, b1, b2, eps, decay, c, p, port):
        self.w, self.m, self.f, self.t = np.array(w), 0.0, 0.0, 0
        self.settings = lr, b1, b2, eps, decay, c, p, port

    def clip(self, x, c, port):
        rms = np.sqrt(np.mean(x**2))
        return x / (max(1, rms) / c) if port else x / max(1, rms / c)

    def step(self, g):
        lr, b1, b2, eps, decay, c, p, port = self.settings
        self.t += 1
        b2_hat = b2 * (1 - b2 ** (self.t - 1)) / (1 - b2**self.t)
        self.f = b2_hat * self.f + (1 - b2_hat) * g**2
        rms = np.sqrt(np.mean(g**2))
        eps_hat = eps * (max(1, rms) if port else min(1, rms))
        d = self.f**p + (eps_hat if port else eps_hat ** (2 * p))
        n, h = self.clip(g / d, c, port), self.clip(self.w / d, c, port)
        self.m = b1 * self.m + (1 - b1) * n
        self.w = self.w - lr * (self.m + decay * h)


@pytest.mark.parametrize("port", [False, True], ids=["paper", "port"])
@pytest.mark.parametrize("p", [0.5, 0.8])
def test_matches_the_published_algorithm(x64, port, p):
    """60 steps on every kind of leaf; layers of a stack are tensors of their own."""
    b1, b2, eps, decay, clip = 0.9, 0.98, 1e-3, 0.05, 0.7
    schedule = lambda count: jnp.where(count < 40, 0.02, 0.005)  # noqa: E731
    params, grads = random_tree(0), gradients(60)
    flags = {"eps_rule": "max", "eps_to_2p": False, "clip_rule": "scale"}
    optimizer = fadam(
        schedule,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=decay,
        weight_decay_mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree),
        clip=clip,
        p=p,
        stacked="^stack/",
        **(flags if port else {}),
    )
    actual, _ = follow(optimizer, jax.tree.map(jnp.asarray, params), stack(grads))

    def expected(path, leaf, *history):
        stacked = path[0].key == "stack"
        rows = [leaf] if not stacked else leaf
        oracles = [
            Oracle(w, None, b1, b2, eps, decay * (w.ndim > 1), clip, p, port)
            for w in rows
        ]
        for t, grad in enumerate(history):
            for oracle, g in zip(oracles, grad if stacked else [grad], strict=True):
                oracle.settings = (float(schedule(t)), *oracle.settings[1:])
                oracle.step(g)
        return np.stack([o.w for o in oracles]) if stacked else oracles[0].w

    wanted = jax.tree_util.tree_map_with_path(expected, params, *grads)
    assert_trees_close(actual, wanted, rtol=1e-10, atol=1e-10)


def test_fisher_information_is_the_second_moment_of_adam(x64):
    """Adam divides by 1 - b2^t when it steps, FAdam folds that into the average."""
    params, grads = random_tree(0), stack(gradients(30))
    params = jax.tree.map(jnp.asarray, params)
    _, state = follow(scale_by_fadam(b2=0.99), params, grads)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it in float64
        _, adam = follow(optax.scale_by_adam(b2=0.99), params, grads)
    assert_trees_close(
        jax.tree.map(jnp.square, state.root),
        jax.tree.map(lambda v: v / (1 - 0.99**30), adam.nu),
        rtol=1e-13,
    )


_W = jax.ShapeDtypeStruct((5, 4), jnp.float32)


@jax.jit
def _trajectory(w, grads, scale, weight_decay, clip, p):
    optimizer = fadam(0.03, b2=0.95, weight_decay=weight_decay, clip=clip, p=p)
    return follow(optimizer, w, grads * scale)[0]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    exponent=st.integers(1, 24),
    decay=st.sampled_from([0.0, 0.1]),
    p=st.sampled_from([0.5, 0.75, 1.0]),
)
def test_loss_scale_does_not_matter_at_all(seed, exponent, decay, p):
    """Bit-equal when the loss shrinks by a power of two and both clips are active.

    A clip at a thousandth is active for any gradient; the rule min(1, RMS(g)) needs
    RMS(g) <= 1, where eps scales as the gradient does.
    """
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(_W.shape).astype(np.float32)
    grads = rng.uniform(-1, 1, (12, *_W.shape)).astype(np.float32)
    run = lambda scale: _trajectory(w, grads, scale, decay, 1e-3, p)  # noqa: E731
    np.testing.assert_array_equal(run(0.5**exponent), run(1.0))
    assert np.any(run(1.0) != w)


def test_without_decay_loss_scale_needs_no_clip(x64):
    """At p = 1/2 the natural gradient itself has no units."""
    w, grads = jnp.ones((5, 4)), jax.random.uniform(jax.random.key(0), (12, 5, 4))
    run = lambda scale: _trajectory(w, grads, scale, 0.0, jnp.inf, 0.5)  # noqa: E731
    np.testing.assert_array_equal(run(0.5**20), run(1.0))


def test_the_max_rule_makes_loss_scale_matter(x64):
    grads = jax.random.uniform(jax.random.key(0), (50, 5, 4), minval=-1)
    ends = {
        (rule, scale): follow(
            fadam(1e-3, eps=1e-4, weight_decay=0.0, eps_rule=rule),
            jnp.ones((5, 4)),
            scale * grads,
        )[0]
        for rule in ("min", "max")
        for scale in (1.0, 1e-3)
    }
    change = {r: np.abs(ends[r, 1.0] - ends[r, 1e-3]).max() for r in ("min", "max")}
    assert change["min"] < 1e-14
    assert change["max"] > 1e-4


@jax.jit
def _natural_gradient(w, grads, clip, p):
    """With b1 = 0 the stored momentum is the clipped natural gradient."""
    optimizer = scale_by_fadam(b1=0.0, b2=0.9, clip=clip, p=p, stacked="kernel")
    return follow(optimizer, {"kernel": w}, {"kernel": grads})[1].mu["kernel"]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    log_size=st.floats(-12, 4),
    clip=st.floats(0.01, 3.0),
    p=st.floats(0.1, 1.0),
)
def test_rms_of_the_natural_gradient_is_at_most_clip(seed, log_size, clip, p):
    """In float32, for each layer of a stack, for gradients of any size."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** (log_size + rng.uniform(-2, 2, (4, 3, 1, 1)))
    grads = (sizes * rng.standard_normal((4, 3, 5, 2))).astype(np.float32)
    n = _natural_gradient(np.ones((3, 5, 2), np.float32), grads, clip, p)
    rms = np.sqrt(np.mean(np.square(n, dtype=np.float64), axis=(1, 2)))
    assert np.all(rms <= clip * (1 + 1e-5))
    assert np.all(rms > 0)


@pytest.mark.parametrize("rule", ["min", "max"])
def test_a_zero_gradient_is_a_zero_step_first_and_momentum_later(rule):
    """Before any gradient D = 0 under the min rule, and neither n nor h is defined."""
    optimizer = scale_by_fadam(weight_decay=0.0, eps_rule=rule)
    w, zero = jnp.array([[1.0, -2.0]]), jnp.zeros((1, 2))
    state = optimizer.init(w)
    for grad, wanted in ((zero, 0.0), (w, 0.1), (zero, 0.09)):
        direction, state = optimizer.update(grad, state, w)
        np.testing.assert_allclose(direction, wanted * np.sign(w), rtol=1e-5)


def test_decay_without_gradient_is_zero_rather_than_undefined():
    optimizer = scale_by_fadam(b1=1.0, weight_decay=0.1)
    w = jnp.array([[1.0, -2.0]])
    direction, state = optimizer.update(jnp.zeros((1, 2)), optimizer.init(w), w)
    np.testing.assert_array_equal(direction, np.zeros((1, 2)))
    # Where the metric is flattest, in an entry that never had a gradient, decay is all.
    direction, _ = optimizer.update(jnp.array([[0.0, 0.3]]), state, w)
    np.testing.assert_allclose(direction, [[0.1 * np.sqrt(2), 0.0]], atol=1e-6)


def test_raising_eps_changes_nothing_at_one_half():
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_tree(0))
    grads = stack(gradients(5))
    grads = jax.tree.map(lambda x: x.astype(jnp.float32), grads)

    def run(p, eps_to_2p):
        return follow(fadam(0.1, eps=0.1, p=p, eps_to_2p=eps_to_2p), params, grads)[0]

    assert_trees_close(run(0.5, True), run(0.5, False), rtol=1e-6)
    different = run(0.8, True)["dense"]["kernel"] - run(0.8, False)["dense"]["kernel"]
    assert np.abs(different).max() > 1e-3


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_decay_does_not_depend_on_the_norm_of_the_weights(x64, factor):
    """Its RMS is weight_decay times clip, whatever the weights are."""
    w = jax.random.normal(jax.random.key(0), (6, 4))
    grad = 0.01 * jax.random.normal(jax.random.key(1), (6, 4))

    def decay(w, rate=0.1):
        optimizer = scale_by_fadam(b1=1.0, weight_decay=rate, clip=0.5)
        return optimizer.update(grad, optimizer.init(w), w)[0]

    np.testing.assert_allclose(decay(factor * w), decay(w), rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.mean(decay(w) ** 2)), 0.05, rtol=1e-12)


def test_first_step_is_a_tenth_of_the_sign(x64):
    grad = jax.random.normal(jax.random.key(0), (6, 4))
    w = jnp.ones((6, 4))
    optimizer = scale_by_fadam(b1=0.9, weight_decay=0.0)
    direction, _ = optimizer.update(grad, optimizer.init(w), w)
    np.testing.assert_allclose(direction, 0.1 * np.sign(grad), rtol=1e-6)


def test_unclipped_it_is_momentum_of_the_rmsprop_gradient_and_not_adam(x64):
    """FAdam normalizes and then averages, Adam averages and then normalizes."""
    params = jax.tree.map(jnp.asarray, random_tree(0))
    # RMS(g) > 1 in every leaf, so eps is not bounded.
    grads = jax.tree.map(lambda x: jnp.sign(x) * (1 + x**2), stack(gradients(30, 1.0)))
    eps, b1, b2 = 1e-2, 0.9, 0.95
    ours = scale_by_fadam(b1, b2, eps, weight_decay=0.0, clip=jnp.inf)
    theirs = optax.chain(
        optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True),
        optax.ema(b1, debias=False),
    )
    actual, _ = follow(ours, params, grads)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it in float64
        rmsprop, _ = follow(theirs, params, grads)
        adam, _ = follow(optax.scale_by_adam(b1, b2, eps), params, grads)
    assert_trees_close(actual, rmsprop, rtol=1e-12)
    assert np.abs(actual["dense"]["kernel"] - adam["dense"]["kernel"]).max() > 0.1


def test_the_full_natural_gradient_keeps_its_decay_in_float32():
    """At p = 1, w / f reaches 1e21 in a row without gradient; its square overflows."""
    optimizer = scale_by_fadam(weight_decay=0.1, p=1.0)
    w = jnp.ones((2, 2))
    direction, _ = optimizer.update(
        jnp.array([[0.0, 0.0], [3e-3, -3e-3]]), optimizer.init(w), w
    )
    np.testing.assert_allclose(direction[0], 0.1 * np.sqrt(2), rtol=1e-5)


def test_bfloat16_parameters_keep_a_float32_state():
    params = {"kernel": jnp.ones((4, 3), jnp.bfloat16)}
    state = scale_by_fadam().init(params)
    assert {x.dtype for x in jax.tree.leaves((state.mu, state.root))} == {
        jnp.dtype(jnp.float32)
    }
    state = scale_by_fadam(mu_dtype=jnp.bfloat16).init(params)
    assert state.mu["kernel"].dtype == jnp.bfloat16
    assert state.root["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("flag", ["eps_rule", "clip_rule"])
def test_unknown_flags_are_refused_with_the_choices(flag):
    with pytest.raises(ValueError, match=rf"{flag}='mean' is not one of \(.*'\)"):
        fadam(0.1, **{flag: "mean"})


def test_hyperparameters_must_be_numbers():
    with pytest.raises(ValueError, match="clip must be a scalar"):
        fadam(0.1, clip=jnp.ones(3))
    with pytest.raises(ValueError, match="no parameter path matches"):
        fadam(0.1, stacked="^blocks/").init({"kernel": jnp.ones((2, 2))})


@pytest.mark.parametrize("implementation", [None, "tpu"])
def test_fused_equals_update_and_apply_updates(x64, monkeypatch, implementation):
    """Stacked layers, a mask, schedules and a leaf without gradient included."""
    interpreted = functools.partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", interpreted)
    shapes = {"stack": (3, 4, 2), "bias": (5,), "scale": (), "still": (2,)}
    rng = np.random.default_rng(0)
    params, grads = (
        {name: jnp.asarray(rng.normal(size=s)) for name, s in shapes.items()}
        for _ in range(2)
    )
    optimizer = fadam(
        optax.linear_schedule(0.1, 0.0, 10),
        weight_decay=optax.linear_schedule(0.2, 0.0, 10),
        weight_decay_mask=lambda tree: jax.tree.map(lambda w: w.ndim > 1, tree),
        stacked="stack",
        implementation=implementation,
    )
    grads = grads | {"still": None}
    ours = theirs = params, optimizer.init(params)
    fused = jax.jit(functools.partial(apply_fused, optimizer))
    for _ in range(2):
        ours = fused(grads, ours[1], ours[0])
        updates, state = jax.jit(optimizer.update)(grads, theirs[1], theirs[0])
        moved = optax.apply_updates(theirs[0], updates | {"still": jnp.zeros(2)})
        theirs = moved, state
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        assert_trees_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_kernel_that_cannot_run_is_refused_when_built(no_gpu_kernels):
    with pytest.raises(ValueError, match="gpu kernel of fadam does not support"):
        fadam(0.1, implementation="gpu")
