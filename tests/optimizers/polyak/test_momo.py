"""MoMo and MoMo-Adam: the authors' trajectories, their model, and its limits."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon_contract import Row, Verified
from gnomon_contract.layers import by_rank

ROWS = (
    Row(
        "momo",
        optimizers.momo,
        {"learning_rate": 1.0, "b1": 0.9, "weight_decay": 1e-6},
        {"bias_correction": True},
        reads=("value",),
    ),
    Row(
        "momo_adam",
        optimizers.momo_adam,
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-6},
        reads=("value",),
    ),
)
LAYERS = {
    "momo_adam": lambda: optimizers.momo_adam(
        0.1, weight_decay=0.1, weight_decay_mask=by_rank
    ),
}

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"

# The authors' argument names, and those here.
NAMES = {
    "lr": "learning_rate",
    "beta": "b1",
    "lb": "f_min",
    "use_fstar": "estimate_f_min",
}
VERIFIED = {
    "momo": Verified("", "the authors' momo-opt 0.1.0", 1e-10),
    "momo_adam": Verified("", "the authors' momo-opt 0.1.0", 1e-10),
}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "momo.npz") as record:
        return dict(record)


RECORDER = runpy.run_path(str(GOLDEN / "record_momo.py"))


def make(run, **changes):
    options = {NAMES.get(k, k): v for k, v in RECORDER["RUNS"][run].items()} | changes
    if "betas" in options:
        options["b1"], options["b2"] = options.pop("betas")
        return optimizers.momo_adam(**options)
    return optimizers.momo(**options)


def follow_recorder(optimizer, steps=RECORDER["STEPS"]):
    """The vector of parameters, and the state, after each step."""
    params = jax.tree.map(jnp.asarray, RECORDER["weights"]())
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for step in range(steps):
        value, grads = RECORDER["loss"](jax.tree.map(np.asarray, params), step)
        grads = jax.tree.map(jnp.asarray, grads)
        updates, state = update(grads, state, params, value=jnp.asarray(value))
        params = optax.apply_updates(params, updates)
        yield np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)]), state


@pytest.mark.parametrize("run", RECORDER["RUNS"])
def test_equals_the_authors_package(x64, golden, run):
    assert "momo-opt==0.1.0" in golden["versions"]
    path = list(follow_recorder(make(run)))
    for wanted, step in zip(golden[run], RECORDER["RECORDED"], strict=True):
        np.testing.assert_allclose(path[step - 1][0], wanted, rtol=0, atol=1e-10)
    bounds = [state.f_min for _, state in path]
    np.testing.assert_allclose(bounds, golden[f"{run}/f_min"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("run", ["momo_decay", "momo_adam_decay"])
def test_both_bounds_of_the_step_size_are_recorded(x64, run):
    """Some steps end at the learning rate, others at the model's minimum."""
    options = RECORDER["RUNS"][run]
    sizes = np.array([state.step_size for _, state in follow_recorder(make(run))])
    rho = 1.0
    if "betas" in options:
        rho = 1 - options["betas"][0] ** np.arange(1.0, 1 + sizes.size)
    capped = np.isclose(sizes, options["lr"] / rho, rtol=1e-12)
    assert capped.any()
    assert (sizes < 0.99 * options["lr"] / rho).any()


def test_optax_differs_only_in_weight_decay(x64):
    """Without decay optax's MoMo is the same; with it, it shrinks the weights alone."""

    def apart(decay):
        theirs = optax.contrib.momo(1.0, 0.9, 0.2, decay)
        ours = make("momo_decay", weight_decay=decay)
        paths = [follow_recorder(optimizer, 10) for optimizer in (ours, theirs)]
        return max(abs(a - b).max() for (a, _), (b, _) in zip(*paths, strict=True))

    with jax.numpy_dtype_promotion("standard"):
        assert apart(0.0) < 1e-12
        assert apart(0.1) > 1e-2


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_uncapped_step_ends_where_the_model_reaches_f_min(x64, weight_decay):
    """h(w') = f*, which is what the step size solves, decay included."""
    optimizer = make("momo", learning_rate=1e3, f_min=0.3, weight_decay=weight_decay)
    for after, state in follow_recorder(optimizer, 5):
        mu = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(state.mu)])
        reached = state.value_average - state.product_average + mu @ after
        if state.step_size > 0:
            np.testing.assert_allclose(reached, 0.3, rtol=1e-12)
        else:
            assert reached < 0.3


def test_masked_leaves_do_not_decay_and_the_model_still_reaches_f_min(x64):
    """Two leaves, one of which decays: h(w') = f* with its own factor on each."""
    params = {"kernel": jnp.array([2.0, -1.0]), "bias": jnp.array([0.5])}
    grads = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}
    optimizer = optimizers.momo(
        1e3,
        f_min=0.5,
        weight_decay=0.1,
        weight_decay_mask={"kernel": True, "bias": False},
    )
    updates, state = optimizer.update(
        grads, optimizer.init(params), params, value=200.0
    )
    tau = state.step_size
    assert 0 < tau < 1e3
    np.testing.assert_allclose(updates["bias"], -tau * grads["bias"], rtol=1e-12)
    model = 200.0 + sum(jnp.sum(grads[name] * updates[name]) for name in params)
    np.testing.assert_allclose(model, 0.5, rtol=1e-12)


def test_without_momentum_it_is_sps(x64):
    """b1 = 0 leaves the last batch alone: SPS with c = 1 and the same bound."""
    runs = [
        follow_recorder(optimizer, 20)
        for optimizer in (make("momo", b1=0.0), optimizers.sps(1.0, c=1.0))
    ]
    for (momo, _), (sps, _) in zip(*runs, strict=True):
        np.testing.assert_allclose(momo, sps, rtol=0, atol=1e-12)


def test_at_its_cap_momo_adam_is_adam(x64):
    """f_min far below the loss never binds, and 1/rho is Adam's bias correction."""
    adam = optax.with_extra_args_support(optax.adam(0.1, b1=0.9, b2=0.99))
    runs = [
        follow_recorder(optimizer, 20)
        for optimizer in (make("momo_adam", f_min=-1e6), adam)
    ]
    with jax.numpy_dtype_promotion("standard"):  # for optax's bias correction
        for (momo, _), (reference, _) in zip(*runs, strict=True):
            np.testing.assert_allclose(momo, reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimate_f_min", [False, True])
@pytest.mark.parametrize("make", [optimizers.momo, optimizers.momo_adam])
def test_below_f_min_only_decay_moves_the_weights(make, estimate_f_min):
    """At the first step the model is the loss itself, below its floor."""
    optimizer = make(f_min=2.0, estimate_f_min=estimate_f_min)
    params = {"w": jnp.array([1.0, -2.0])}
    updates, state = optimizer.update(params, optimizer.init(params), params, value=0.1)
    np.testing.assert_array_equal(updates["w"], 0.0)
    assert state.step_size == 0
    assert state.f_min == 2.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("make", [optimizers.momo, optimizers.momo_adam])
def test_lost_loss_shows_at_once(make, value):
    """NaN reaches every parameter, unless optax is told to leave the step out."""
    optimizer = make()
    params = {"w": jnp.array([1.0, -2.0]), "unused": jnp.zeros(2)}
    updates, _ = optimizer.update(params, optimizer.init(params), params, value=value)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(updates))
    guarded = optax.conditionally_mask(
        optimizer,
        lambda step, value, **rest: jnp.isfinite(value),
        forward_extra_args=True,
    )
    state = guarded.init(params)
    updates, state = guarded.update(params, state, params, value=value)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))
    assert optax.tree.get(state, "value_average") == 0


def test_bfloat16_weights_get_the_float32_step_size():
    """<d, w> and its average nearly cancel; bfloat16 averages would lose the gap."""
    weights = 30 + jax.random.normal(jax.random.key(0), (4096,), jnp.bfloat16)
    grads = jnp.stack([weights * scale for scale in (0.125, -0.0625, 0.03125)])

    def step_size(dtype):
        optimizer = optimizers.momo(10.0, b1=0.9)
        state = optimizer.init(weights.astype(dtype))
        for grad in grads.astype(dtype):
            updates, state = optimizer.update(
                grad, state, weights.astype(dtype), value=3.0
            )
        assert updates.dtype == dtype
        return state.step_size

    np.testing.assert_allclose(
        step_size(jnp.bfloat16), step_size(jnp.float32), rtol=1e-5
    )


@pytest.mark.parametrize("make", [optimizers.momo, optimizers.momo_adam])
def test_refusals_name_the_argument(make):
    optimizer = make()
    w = jnp.ones(2)
    state = optimizer.init(w)
    with pytest.raises(ValueError, match="value=loss"):
        optimizer.update(w, state, w)
    with pytest.raises(ValueError, match="parameters"):
        optimizer.update(w, state, value=1.0)
    with pytest.raises(ValueError, match="value must be a scalar"):
        optimizer.update(w, state, w, value=w)
    with pytest.raises(ValueError, match="learning_rate must be a scalar"):
        make(jnp.ones(2))
    with pytest.raises(ValueError, match="f_min must be a scalar"):
        make(f_min=jnp.ones(2))
