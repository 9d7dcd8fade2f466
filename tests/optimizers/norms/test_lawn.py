"""LAWN: free as its optimizer, then norms that stay, and what goes into each step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon import optimizers
from gnomon.optimizers.adaptive.fadam import fadam
from gnomon.optimizers.norms.lawn import lawn, lawn_schedule
from gnomon_contract import Row, Verified, around_adamp

# A norm that is held must be that of the target, 0.1 * arange(32): 10.206.
ROWS = (
    Row(
        "lawn",
        around_adamp(lawn),
        {"learning_rate": 0.05, "free_steps": 2.0, "floor": 10.206},
        covers=("lawn",),
    ),
)
GIVEN = {"lawn": dict(free_steps=1)}
LAYERS = {"lawn": lambda i, **s: lawn(i, free_steps=1, **s)}
VERIFIED = {"lawn": Verified("B02", "NumPy", 1e-10)}


@pytest.fixture
def standard():
    """optax's own optimizers multiply integers by floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def random_tree(seed):
    shapes = {
        "dense": {"kernel": (6, 4), "bias": (4,)},
        "conv": {"kernel": (2, 2, 3, 4)},
        "embed": {"embedding": (5, 3)},
        "query": {"kernel": (4, 2, 3)},
    }
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(generator.normal(size=shape)),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def advance(optimizer, params, state, steps):
    """Steps number ``steps`` on gradients that depend on the step and the weights."""
    update = jax.jit(optimizer.update)
    for step in steps:
        noise = random_tree(100 + step)
        grads = jax.tree.map(lambda w, n: jnp.sin(w) + n, params, noise)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        yield params, state


def norms(params):
    return {
        name: np.linalg.norm(np.ravel(next(iter(leaves.values()))))
        for name, leaves in params.items()
        if name != "dense"
    } | {"dense": np.linalg.norm(params["dense"]["kernel"])}


@pytest.mark.parametrize("view", ["layer", "unit"])
def test_equals_a_numpy_transcription(x64, standard, oracle, view):
    """LAWN on optax's Adam, free for 20 of 60 steps."""
    rate, b1, b2, eps, free = 0.02, 0.9, 0.97, 1e-8, 20

    def rule(w, g, memory, t):
        axis = 1 if view == "unit" else None

        def total(x):
            return np.sum(x, axis=axis, keepdims=True)

        def tangent(x):
            return x - w * total(w * x) / total(w * w)

        held = w.ndim > 1 and t > free
        m, v = memory.get("m", 0 * w), memory.get("v", 0 * w)
        if held and t == free + 1:
            memory["c"] = np.sqrt(total(w * w))
        if held:
            g = tangent(g)
        m = memory["m"] = b1 * m + (1 - b1) * g
        v = memory["v"] = b2 * v + (1 - b2) * g * g
        u = rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        if not held:
            return w - u, "free"
        moved = w - tangent(u)
        return memory["c"] * moved / np.sqrt(total(moved**2)), "held"

    optimizer = lawn(
        optax.adam(rate, b1=b1, b2=b2, eps=eps),
        free_steps=free,
        view=view,
        stacked="^blocks/",
    )
    views = oracle.compare(optimizer, rule, steps=60, atol=1e-10)
    assert views.count("held") >= 40 * 5


def test_weights_without_a_gradient_take_no_leap_at_the_switch(x64, standard):
    """An input that is always zero, an embedding that is never looked up.

    Only the projection moves such weights, and their second moments are still zero.
    Over moments of one sequence of vectors Adam's ratio has a bound, by Cauchy and
    Schwarz; first moments that were changed on their own would break it.
    """
    b1, b2, free, steps = 0.9, 0.999, 20, 30
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
    optimizer = lawn(optax.adam(0.05, b1=b1, b2=b2), free_steps=free)
    state, ratios = optimizer.init(kernel), []
    for step in range(steps):
        # Gradients shrink, as those of a network that comes to fit its data do.
        grads = 0.8**step * kernel.at[3:].set(0)
        updates, state = optimizer.update(grads, state, kernel)
        kernel = optax.apply_updates(kernel, updates)
        mu, nu = state.inner[0].mu[3:], state.inner[0].nu[3:]
        ratios.append(jnp.max(jnp.abs(mu) / jnp.sqrt(jnp.where(nu > 0, nu, 1))))
    bound = (1 - b1) / jnp.sqrt((1 - b2) * (1 - b1**2 / b2))
    assert max(ratios[:free]) == 0
    assert min(ratios[free:]) > 0
    assert max(ratios) < bound


@pytest.mark.parametrize("inner", ["adam", "sgd", "adamp"])
def test_the_free_phase_is_the_inner_optimizer_to_the_bit(standard, inner):
    base = {
        "adam": lambda: optax.adam(0.05),
        "sgd": lambda: optax.sgd(0.05, momentum=0.9),
        "adamp": lambda: optimizers.adamp(0.05),
    }[inner]()
    params = random_tree(0)
    optimizer = lawn(base, free_steps=12)
    free = list(advance(base, params, base.init(params), range(14)))
    both = list(advance(optimizer, params, optimizer.init(params), range(14)))
    for step in range(12):
        jax.tree.map(np.testing.assert_array_equal, both[step][0], free[step][0])
        jax.tree.map(np.testing.assert_array_equal, both[step][1].inner, free[step][1])
    assert norms(both[12][0])["conv"] != norms(free[12][0])["conv"]


def inner_optimizers():
    return {
        "adam": lambda: optax.adam(0.05),
        "lamb": lambda: optax.lamb(0.05),
        "sgd": lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
        "adamp": lambda: optimizers.adamp(0.05, weight_decay=0.0),
        "sgdp": lambda: optimizers.sgdp(0.05, momentum=0.9),
        "fadam": lambda: fadam(0.05, weight_decay=0.0),
        "muon": lambda: optax.contrib.muon(0.05),
        "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
        "accumulated": lambda: optax.MultiSteps(
            optax.adam(0.05), 2
        ).gradient_transformation(),
    }


@pytest.mark.parametrize("inner", inner_optimizers())
def test_norms_stay_after_the_switch_whatever_the_optimizer(x64, standard, inner):
    params = random_tree(0)
    optimizer = lawn(inner_optimizers()[inner](), free_steps=4)
    rows = list(advance(optimizer, params, optimizer.init(params), range(30)))
    at_switch = norms(rows[3][0])
    assert any(abs(at_switch[k] / v - 1) > 1e-3 for k, v in norms(params).items())
    for moved, _ in rows[4:]:
        for name, norm in norms(moved).items():
            np.testing.assert_allclose(norm, at_switch[name], rtol=1e-12)
    moved, still = rows[-1][0], rows[3][0]
    for leaf, before in zip(*map(jax.tree.leaves, (moved, still)), strict=True):
        assert np.abs(leaf - before).max() > 1e-2
    bias = [p["dense"]["bias"] for p in (moved, still)]
    assert abs(np.linalg.norm(bias[0]) / np.linalg.norm(bias[1]) - 1) > 1e-6


def test_a_run_restored_in_the_constrained_phase_goes_on_to_the_bit(
    x64, standard, tmp_path
):
    """The frozen norms are in the state; nothing is captured anew."""
    params = random_tree(0)
    optimizer = lawn(optax.adam(0.05), free_steps=3)
    rows = list(advance(optimizer, params, optimizer.init(params), range(20)))
    saved = rows[9]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", saved)
        checkpointer.wait_until_finished()
        shapes = jax.eval_shape(lambda p: (p, optimizer.init(p)), params)
        restored = checkpointer.restore(tmp_path / "run", shapes)
    resumed = list(advance(optimizer, *restored, range(10, 20)))
    for got, wanted in zip(resumed, rows[10:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, got, wanted)
    # Weights that were rescaled while they were away return to their norm.
    longer = jax.tree.map(lambda w: 1.5 * w, restored[0])
    (moved, _), *_ = advance(optimizer, longer, restored[1], [10])
    for name, norm in norms(moved).items():
        np.testing.assert_allclose(norm, norms(rows[2][0])[name], rtol=1e-12)


class SpyState(NamedTuple):
    """What the last update was given."""

    grads: optax.Updates


def spy(inner_update):
    """A complete optimizer that remembers its gradients and emits what it is told."""
    return optax.GradientTransformation(
        lambda params: SpyState(jax.tree.map(jnp.zeros_like, params)),
        lambda grads, state, params=None: (inner_update(grads), SpyState(grads)),
    )


floats = st.floats(-3, 3, allow_subnormal=False, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(floats, min_size=6, max_size=6).filter(lambda w: np.linalg.norm(w) > 0.1),
    st.lists(floats, min_size=6, max_size=6),
    st.floats(0.001, 2.0),
)
def test_one_step_is_a_turn_by_the_angle_of_its_tangent_update(weights, grads, rate):
    """Tangent in, tangent out; before retraction the norm is c sqrt(1 + (|u|/c)^2).

    So the cosine between the old and the new weight is one over that growth, and the
    new weight lies in the plane of the old one and the update.
    """
    with jax.enable_x64(True):
        w, g = (jnp.asarray(x).reshape(3, 2) for x in (weights, grads))
        optimizer = lawn(spy(lambda g: -rate * (g + 0.3 * w)), free_steps=0)
        updates, state = optimizer.update(g, optimizer.init(w), w)
        moved, seen = w + updates, state.inner.grads
        c = jnp.linalg.norm(w)
        tangent = g - w * jnp.sum(w * g) / jnp.sum(w * w)
        np.testing.assert_allclose(seen, tangent, rtol=0, atol=1e-12)
        assert abs(jnp.sum(seen * w)) < 1e-12
        np.testing.assert_allclose(jnp.linalg.norm(moved), c, rtol=1e-12)
        # The radial part 0.3 w that the inner optimizer put in is gone.
        growth = jnp.sqrt(1 + (rate * jnp.linalg.norm(tangent) / c) ** 2)
        cosine = jnp.sum(moved * w) / (c * jnp.linalg.norm(moved))
        np.testing.assert_allclose(cosine, 1 / growth, rtol=1e-12)
        np.testing.assert_allclose(
            moved * growth, w - rate * tangent, rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("view", ["layer", "unit"])
def test_learning_rate_zero_keeps_everything(x64, standard, view):
    params = random_tree(0)
    optimizer = lawn(optax.adam(0.0), free_steps=2, view=view)
    *_, (kept, _) = advance(optimizer, params, optimizer.init(params), range(100))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), kept, params
    )


def test_the_switch_may_be_traced_and_batched():
    """One vmapped program over free_steps equals one optimizer for each."""
    kernel = random_tree(0)["dense"]["kernel"].astype(jnp.float32)

    def run(free_steps, rate):
        optimizer = lawn(optimizers.adamp(rate), free_steps=free_steps)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jnp.sin(params), state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), jnp.linalg.norm(params)

        return jax.lax.scan(step, (kernel, optimizer.init(kernel)), length=6)[1]

    switches, rates = jnp.array([0.0, 2.0, 4.0, 9.0]), jnp.array([0.1, 0.2, 0.1, 0.1])
    batched = jax.jit(jax.vmap(run))(switches, rates)
    for got, switch, rate in zip(batched, (0, 2, 4, 9), rates, strict=True):
        np.testing.assert_allclose(got, run(switch, rate), rtol=1e-6)
        changes = np.abs(np.diff(got, prepend=jnp.linalg.norm(kernel)))
        assert np.all(changes[:switch] > 1e-3)
        assert np.all(changes[switch:] < 1e-5)


def network(params, inputs):
    """A ReLU network without biases: positively homogeneous in every layer."""
    for kernel in params[:-1]:
        inputs = jax.nn.relu(inputs @ kernel)
    return inputs @ params[-1]


def test_logits_stay_bounded_where_those_of_the_base_optimizer_grow(x64, standard):
    """By homogeneity logits are at most the product of the norms that are held."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = [(4, 16), (16, 16), (16, 3)]
    first = [
        jax.random.normal(k, s) / s[0] ** 0.5
        for k, s in zip(keys[:3], shapes, strict=True)
    ]
    inputs = jax.random.normal(keys[3], (12, 4))
    labels = jax.random.randint(keys[4], (12,), 0, 3)
    scaled = [*first[:1], 3.0 * first[1], *first[2:]]
    np.testing.assert_allclose(
        network(scaled, inputs), 3 * network(first, inputs), rtol=1e-12
    )

    def loss(params):
        logits = network(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def train(optimizer):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        start = first, optimizer.init(first)
        return jax.jit(lambda: jax.lax.scan(step, start, length=400)[0])()

    held, state = train(lawn(optax.adam(0.01), free_steps=10))
    free, _ = train(optax.adam(0.01))
    size = float(jnp.max(jnp.linalg.norm(inputs, axis=1)))
    bound = size * np.prod([float(jnp.squeeze(c)) for c in state.reference])
    assert jnp.max(jnp.abs(network(held, inputs))) <= bound * (1 + 1e-12)
    assert jnp.max(jnp.abs(network(free, inputs))) > 2 * jnp.max(
        jnp.abs(network(held, inputs))
    )
    assert loss(held) < 0.5 * loss(first)
    # The network loses its adaptivity: gradients vanish with the loss.
    sizes = [optax.tree.norm(jax.grad(loss)(params)) for params in (held, free)]
    assert sizes[0] > 3 * sizes[1]


def test_a_layer_that_is_zero_at_the_switch_is_left_free_or_given_a_floor(x64):
    params = {"kernel": jnp.zeros((3, 2)), "other": jnp.ones((3, 2))}
    grads = {"kernel": jnp.ones((3, 2)), "other": jnp.eye(3, 2)}
    for floor, wanted in ((0.0, 0.1 * 6**0.5), (0.5, 0.5)):
        optimizer = lawn(optax.sgd(0.1), free_steps=0, floor=floor)
        updates, state = optimizer.update(grads, optimizer.init(params), params)
        norm = np.linalg.norm(updates["kernel"])
        np.testing.assert_allclose(norm, wanted, rtol=1e-12)
        assert float(np.squeeze(state.reference["kernel"])) == floor
        moved = np.linalg.norm(params["other"] + updates["other"])
        np.testing.assert_allclose(moved, 6**0.5, rtol=1e-12)


def test_leaves_are_chosen_by_regex_mask_or_function(x64):
    params = random_tree(0)
    mask = jax.tree.map(lambda w: False, params)
    mask["conv"]["kernel"] = True
    choices = ["^conv/", mask, lambda p: mask, {**mask, "conv": True}]
    for constrained in choices:
        optimizer = lawn(optax.sgd(0.1), free_steps=0, constrained=constrained)
        (moved, state), *_ = advance(optimizer, params, optimizer.init(params), [0])
        before, after = norms(params), norms(moved)
        np.testing.assert_allclose(after.pop("conv"), before.pop("conv"), rtol=1e-12)
        assert all(abs(after[k] - before[k]) > 1e-3 for k in after)
        assert len(jax.tree.leaves(state.reference)) == 1


def test_a_direction_with_its_step_is_an_inner_optimizer(standard):
    params = random_tree(0)

    def last(optimizer):
        *_, (moved, _) = advance(optimizer, params, optimizer.init(params), range(6))
        return moved

    options = {"b2": 0.9}
    wanted = last(lawn(optax.adam(0.1, **options), free_steps=3))
    schedule = optax.constant_schedule(0.1)
    for rate in (0.1, schedule):
        inner = optax.chain(optax.scale_by_adam(**options), optimizers.descend(rate))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            last(lawn(inner, free_steps=3)),
            wanted,
        )
    with pytest.raises(ValueError, match="free_steps must be a scalar"):
        lawn(optax.adam(0.1), free_steps=jnp.array([1, 2]))


def test_schedule_is_a_tent_of_traceable_numbers(x64):
    steps = jnp.arange(0, 121)

    def rates(peak, warmup, total):
        schedule = lawn_schedule(peak, warmup_steps=warmup, total_steps=total)
        return jax.vmap(schedule)(steps)

    t = np.arange(0, 121)
    for peak, warmup, total in ((0.3, 20, 100), (1.0, 0, 50), (2.0, 100, 100)):
        wanted = np.interp(t, [0, warmup, max(total, warmup + 1e-9)], [0, peak, 0])
        if warmup == 0:
            wanted = np.interp(t, [0, total], [peak, 0])
        if warmup == total:  # no decay left: the peak is never reached
            wanted = np.where(t < warmup, peak * t / warmup, 0)
        got = jax.jit(rates)(peak, warmup, total)
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
