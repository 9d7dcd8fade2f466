"""AdamP: an independent transcription, its invariants and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.optimizers import adamp, project_radial, project_tangent, scale_by_adamp
from gnomon_contract import Row, Verified
from gnomon_contract.layers import ascending, by_rank

ROWS = (
    Row(
        "adamp",
        adamp,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-8,
            "weight_decay": 1e-5,
            "delta": 0.1,
            "wd_ratio": 0.1,
        },
        covers=("descend",),  # the link that ends it
    ),
    Row(
        "adamp_nesterov",
        adamp,
        {"learning_rate": 0.05, "b2": 0.99, "weight_decay": 1e-5},
        {"nesterov": True},
        # Long after it has converged the second moment is so small that it jumps.
        steps=300,
    ),
)
LAYERS = {
    "adamp": lambda **s: adamp(0.1, weight_decay=0.1, weight_decay_mask=by_rank, **s),
    "project_radial": lambda i, **s: project_radial(
        ascending(i), weight_decay=0.01, **s
    ),
}
VERIFIED = {"adamp": Verified("A01", "the authors' adamp 0.3.0", 1e-10)}


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_a_numpy_transcription(x64, oracle, nesterov):
    rate, b1, b2, eps, decay, delta, ratio = 0.02, 0.9, 0.97, 1e-7, 0.05, 0.2, 0.3

    def rule(w, g, memory, t):
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
        denominator = np.sqrt(v) / np.sqrt(1 - b2**t) + eps
        p = ((b1 * m + (1 - b1) * g) if nesterov else m) / denominator
        r, view = 1.0, "bias"
        if w.ndim > 1:
            p, r, view = oracle.project(w, g, p, delta, ratio, eps)
        return w * (1 - rate * decay * r) - rate / (1 - b1**t) * p, view

    optimizer = adamp(
        rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=decay,
        delta=delta,
        wd_ratio=ratio,
        nesterov=nesterov,
        stacked="^blocks/",
    )
    views = oracle.compare(optimizer, rule, steps=60, atol=1e-12)
    assert set(views) == {"unit", "layer", "none", "bias"}
    assert min(views.count(view) for view in set(views)) > 50


def run(optimizer, params, grads):
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for grad in grads:
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


def random_trees(steps):
    keys = jax.random.split(jax.random.key(1), steps + 1)
    trees = [
        {"kernel": jax.random.normal(k, (5, 4)), "bias": jax.random.normal(k, (4,))}
        for k in keys
    ]
    return trees[0], trees[1:]


def test_without_a_threshold_it_is_adamw(x64):
    """At delta = 0 the strict test passes nowhere, not even at a zero cosine."""
    params, grads = random_trees(20)
    grads[3] = jax.tree.map(jnp.zeros_like, grads[3])
    ours = run(adamp(0.1, weight_decay=0.3, delta=0.0), params, grads)
    with jax.numpy_dtype_promotion("standard"):
        theirs = run(optax.adamw(0.1, weight_decay=0.3), params, grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), ours, theirs
    )


@pytest.mark.parametrize(("delta", "ratio"), [(0.0, 1.0), (1e9, 0.1)])
def test_decay_is_weakened_exactly_where_the_test_passes(x64, delta, ratio):
    params, _ = random_trees(0)
    optimizer = scale_by_adamp(weight_decay=0.5, delta=delta, wd_ratio=0.1)
    zeros = jax.tree.map(jnp.zeros_like, params)
    direction, _ = optimizer.update(zeros, optimizer.init(params), params)
    # A zero gradient gives no direction, so that decay alone is left.
    np.testing.assert_allclose(direction["kernel"], 0.5 * ratio * params["kernel"])
    np.testing.assert_allclose(direction["bias"], 0.5 * params["bias"])


def test_masked_leaves_do_not_decay(x64):
    params, _ = random_trees(0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for mask in ({"kernel": True, "bias": False}, lambda p: {"kernel": 1, "bias": 0}):
        optimizer = scale_by_adamp(weight_decay=0.5, weight_decay_mask=mask)
        direction, _ = optimizer.update(zeros, optimizer.init(params), params)
        np.testing.assert_allclose(direction["kernel"], 0.05 * params["kernel"])
        np.testing.assert_array_equal(direction["bias"], 0.0)


def test_decay_follows_its_schedule(x64):
    params, _ = random_trees(0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = scale_by_adamp(
        weight_decay=optax.linear_schedule(0.5, 1.5, 2), delta=0.0
    )
    state = optimizer.init(params)
    for rate in (0.5, 1.0, 1.5):
        direction, state = optimizer.update(zeros, state, params)
        np.testing.assert_allclose(direction["kernel"], rate * params["kernel"])


def test_the_layer_view_is_the_fallback(x64):
    """Two units whose radial gradients cancel: the layer is orthogonal, they are not.
    What is removed is then the component along the whole layer."""
    w = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    g = jnp.array([[1.0, 0.3], [0.5, -1.0]])
    direction, _ = scale_by_adamp().update(g, scale_by_adamp().init(w), w)
    plain, _ = scale_by_adamp(delta=0.0).update(g, scale_by_adamp().init(w), w)
    np.testing.assert_allclose(
        direction, project_tangent(plain, w, (0, 1)), rtol=0, atol=1e-14
    )
    # Here that is nothing: sign(g) is orthogonal to w as g is. With a first moment that
    # is not, there is a component to remove.
    state = scale_by_adamp().init(w)
    for grad in (jnp.abs(g), g):
        direction, new = scale_by_adamp().update(grad, state, w)
        plain, _ = scale_by_adamp(delta=0.0).update(grad, state, w)
        state = new
    removed = plain - direction
    assert jnp.abs(removed).max() > 0.1
    np.testing.assert_allclose(removed / removed[0, 0], w, atol=1e-14)


def test_rules_choose_what_a_unit_is(x64):
    """The same matrix read as rows, as columns or as no unit at all."""
    w = {"w": jnp.arange(1.0, 7.0).reshape(2, 3)}
    g = {"w": jnp.array([[1.0, -2.0, 0.5], [3.0, 0.1, -1.0]])}
    plain = scale_by_adamp(delta=0.0)
    p, _ = plain.update(g, plain.init(w), w)
    for axes, wanted in (
        ((0,), project_tangent(p["w"], w["w"], 0)),
        ((1,), project_tangent(p["w"], w["w"], 1)),
        ((), p["w"]),
    ):
        optimizer = scale_by_adamp(delta=1e9, rules=[("^w$", axes)])
        direction, _ = optimizer.update(g, optimizer.init(w), w)
        np.testing.assert_allclose(direction["w"], wanted, rtol=0, atol=1e-14)


scalars = st.floats(0.05, 0.95)


@given(st.integers(0, 2**31), scalars, scalars, st.floats(0.0, 0.3), st.floats(0.0, 1))
@settings(max_examples=25, deadline=None)
def test_a_projected_step_is_orthogonal(seed, b1, b2, rate, ratio):
    """Unit by unit q is orthogonal to w, so with pre-step decay
    |w'|^2 = (1 - lr wd r)^2 |w|^2 + lr^2 |q|^2."""
    with jax.enable_x64(True):
        w, first, g = jax.random.normal(jax.random.key(seed), (3, 4, 3))
        g = project_tangent(g, w, 0, 0.0)
        options = dict(b1=b1, b2=b2, eps=1e-30, wd_ratio=ratio)
        bare = scale_by_adamp(**options)
        decayed = adamp(rate, weight_decay=0.5, **options)

        # The moments remember a gradient that was not orthogonal.
        _, state = bare.update(first, bare.init(w), w)
        q, _ = bare.update(g, state, w)
        lengths = jnp.linalg.norm(q, axis=0) * jnp.linalg.norm(w, axis=0)
        assert (jnp.abs(jnp.sum(q * w, axis=0)) <= 1e-13 * lengths).all()

        _, state = decayed.update(first, decayed.init(w), w)
        updates, _ = decayed.update(g, state, w)
        shrink = (1 - rate * 0.5 * ratio) ** 2
        np.testing.assert_allclose(
            jnp.sum((w + updates) ** 2, axis=0),
            shrink * jnp.sum(w**2, axis=0) + rate**2 * jnp.sum(q**2, axis=0),
            rtol=1e-12,
        )


def test_eps_leaves_a_radial_remainder_of_its_size(x64):
    """u = w / (|w| + eps) is not quite a unit vector: of p's radial part a fraction
    1 - (|w| / (|w| + eps))^2 stays."""
    w, g = jax.random.normal(jax.random.key(0), (2, 6, 4))
    eps = 1e-3
    plain = scale_by_adamp(eps=eps, delta=0.0)
    optimizer = scale_by_adamp(eps=eps, delta=1e9)
    p, _ = plain.update(g, plain.init(w), w)
    q, _ = optimizer.update(g, optimizer.init(w), w)
    norm = jnp.linalg.norm(w, axis=0)
    np.testing.assert_allclose(
        jnp.sum(q * w, axis=0),
        jnp.sum(p * w, axis=0) * (1 - (norm / (norm + eps)) ** 2),
        rtol=1e-10,
    )


def test_a_bfloat16_second_moment_still_decays():
    """In bfloat16, 0.999 v rounds to v: the average of squares could only grow."""
    params = jnp.ones((2, 2), jnp.bfloat16)
    optimizer = scale_by_adamp()
    state = optimizer.init(params)
    _, state = optimizer.update(params, state, params)
    _, later = optimizer.update(jnp.zeros_like(params), state, params)
    np.testing.assert_allclose(later.nu, 0.999 * state.nu, rtol=1e-6)


def test_moments_take_the_dtype_asked_for():
    params = {"w": jnp.ones((2, 2))}
    state = adamp(0.1, mu_dtype=jnp.bfloat16).init(params)
    assert state[0].mu["w"].dtype == jnp.bfloat16
    assert state[0].nu["w"].dtype == jnp.float32


def test_project_radial_of_adam_is_adamp(x64):
    """The wrapper around optax's Adam, and the link behind it, make AdamP."""
    params, grads = random_trees(10)
    options = dict(weight_decay=0.1, delta=0.3)
    wrapped = optax.chain(
        project_radial(optax.scale_by_adam(), **options), optax.scale(-0.1)
    )
    link = optax.chain(
        optax.scale_by_adam(), project_radial(**options), optax.scale(-0.1)
    )

    def run_with_grad(params):
        state, update = link.init(params), jax.jit(link.update)
        for grad in grads:
            updates, state = update(grad, state, params, grad=grad)
            params = optax.apply_updates(params, updates)
        return params

    ours = run(adamp(0.1, **options), params, grads)
    with jax.numpy_dtype_promotion("standard"):
        for theirs in (run(wrapped, params, grads), run_with_grad(params)):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12),
                ours,
                theirs,
            )


def test_the_link_refuses_to_guess_the_gradient():
    w = jnp.ones((2, 2))
    link = project_radial()
    with pytest.raises(ValueError, match=r"update\(\.\.\., grad=grads\)"):
        link.update(w, link.init(w), w)


def test_the_toy_keeps_its_norm(x64, toy_norm):
    """Adam lengthens the weight, which shortens its effective step; AdamP does not."""
    with jax.numpy_dtype_promotion("standard"):
        assert toy_norm(optax.adam(0.05)) > 1.5
    assert toy_norm(adamp(0.05)) < 1.1


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("learning_rate", jnp.array([0.1, 0.2])),
        ("learning_rate", np.array([0.1])),
        ("b1", jnp.array([0.9])),
        ("delta", jnp.array([0.1])),
        ("weight_decay", jnp.zeros((2, 2))),
    ],
)
def test_hyperparameters_of_the_wrong_rank_are_refused(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be a scalar.*vmap"):
        adamp(**{"learning_rate": 0.1, name: bad})


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_a_schedule_of_the_wrong_rank_is_refused(name):
    optimizer = adamp(**{"learning_rate": 0.1, name: lambda step: jnp.ones(3)})
    w = jnp.ones((2, 2))
    with pytest.raises(ValueError, match=f"schedule {name} must be a scalar"):
        optimizer.update(w, optimizer.init(w), w)


def test_missing_params_say_what_to_call():
    optimizer = adamp(0.1)
    w = jnp.ones((2, 2))
    with pytest.raises(ValueError, match=r"update\(grads, state, params\)"):
        optimizer.update(w, optimizer.init(w))


def test_a_rule_for_nothing_is_refused_at_init():
    with pytest.raises(ValueError, match="no parameter path matches"):
        adamp(0.1, rules=[("kernel", 0)]).init({"w": jnp.ones((2, 2))})
