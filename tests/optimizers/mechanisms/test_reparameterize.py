"""An optimizer in latent coordinates is that optimizer on the composed loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers


def cubes(tree):
    return jax.tree.map(lambda z: z**3 + z, tree)


def roots(tree):
    """Newton's method, from the weight itself."""

    def root(w):
        z = w
        for _ in range(30):
            z = z - (z**3 + z - w) / (3 * z**2 + 1)
        return z

    return jax.tree.map(root, tree)


GIVEN = {
    "reparameterize": dict(
        forward=lambda tree: jax.tree.map(lambda x: 2 * x, tree),
        inverse=lambda tree: jax.tree.map(lambda x: x / 2, tree),
    )
}
LAYERS = {"reparameterize": lambda i: optimizers.reparameterize(i, cubes, roots)}


def exp(tree):
    return jax.tree.map(jnp.exp, tree)


def log(tree):
    return jax.tree.map(jnp.log, tree)


def identity(tree):
    return tree


def loss(params):
    return jnp.sum((params["a"] - 2) ** 2) + jnp.sum(params["b"] * params["a"][:, None])


def start(dtype=jnp.float32):
    return {
        "a": jnp.array([0.5, 1.5], dtype),
        "b": jnp.array([[1.0, 2.0, 3.0], [0.5, 0.25, 4.0]], dtype),
    }


def test_equals_training_the_composed_loss(x64):
    """Fifty steps of Adam on log-weights, against autodiff through the exponential."""
    params = start(jnp.float64)
    optimizer = optimizers.reparameterize(optax.adam(0.05), exp, log)
    state = optimizer.init(params)
    plain, latents = optax.adam(0.05), log(params)
    plain_state = plain.init(latents)

    @jax.jit
    def step(params, state, latents, plain_state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        gradients = jax.grad(lambda z: loss(exp(z)))(latents)
        moves, plain_state = plain.update(gradients, plain_state, latents)
        params = optax.apply_updates(params, updates)
        return params, state, optax.apply_updates(latents, moves), plain_state

    carry = params, state, latents, plain_state
    for _ in range(50):
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it in float64
            carry = step(*carry)
        for got, wanted in zip(
            jax.tree.leaves(carry[0]), jax.tree.leaves(exp(carry[2])), strict=True
        ):
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-10)


def test_the_identity_changes_nothing():
    params = start()
    updates, states = [], []
    for optimizer in (
        optax.adamw(0.1),
        optimizers.reparameterize(optax.adamw(0.1), identity, identity),
    ):
        with jax.numpy_dtype_promotion("standard"):
            state = optimizer.init(params)
            update, state = optimizer.update(jax.grad(loss)(params), state, params)
        updates.append(update)
        states.append(state)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *updates)


def test_latents_of_bfloat16_weights_collect_steps_too_small_to_round():
    """A thousand steps of 1e-4 reach 1.1; in bfloat16 the first one is lost already."""
    w, g = jnp.ones(3, jnp.bfloat16), -jnp.ones(3, jnp.bfloat16)
    optimizer = optimizers.reparameterize(optax.sgd(1e-4), identity, identity)

    @jax.jit
    def run(w):
        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(g, state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, optimizer.init(w)), length=1000)[0]

    moved, state = run(w)
    assert moved.dtype == jnp.bfloat16
    assert state.latents.dtype == jnp.float32
    np.testing.assert_allclose(state.latents, 1.1, rtol=1e-4)
    # To the nearest bfloat16, or the one beside it.
    np.testing.assert_allclose(moved.astype(jnp.float32), 1.1, rtol=2**-7)


def test_changes_from_outside_are_undone():
    params = start()
    optimizer = optimizers.reparameterize(optax.sgd(0.01), exp, log)
    state, grads = optimizer.init(params), jax.grad(loss)(params)
    changed = jax.tree.map(lambda w: 3 * w, params)
    wanted = optax.apply_updates(params, optimizer.update(grads, state, params)[0])
    got = optax.apply_updates(changed, optimizer.update(grads, state, changed)[0])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), got, wanted)


def test_state_and_parameters_can_be_donated_together():
    """Latents that start equal to the weights do not share their buffers."""
    optimizer = optimizers.reparameterize(optax.sgd(0.01), identity, identity)
    params = start()
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    wanted, _ = step(params, state)
    got, _ = donating(params, state)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_extra_args_speak_of_latents():
    """Each is what it would be had the loss been written in the latents."""
    params = start()
    seen = {}

    def spy(updates, state, params=None, **extra_args):
        seen.update(extra_args, updates=updates, latents=params)
        return jax.tree.map(jnp.negative, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), spy)
    optimizer = optimizers.reparameterize(inner, exp, log)
    value, grads = jax.value_and_grad(loss)(params)
    optimizer.update(
        grads,
        optimizer.init(params),
        params,
        value=value,
        grad=grads,
        value_fn=loss,
        obj_fn=loss,
        grad_fn=jax.grad(loss),
    )
    composed = jax.grad(lambda z: loss(exp(z)))(seen["latents"])
    for got in (seen["updates"], seen["grad"], seen["grad_fn"](seen["latents"])):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), got, composed
        )
    for name in ("value_fn", "obj_fn"):
        np.testing.assert_allclose(seen[name](seen["latents"]), value, rtol=1e-6)
    np.testing.assert_array_equal(seen["value"], value)


def test_a_missing_gradient_is_zero():
    params = start()
    optimizer = optimizers.reparameterize(optax.sgd(0.1), exp, log)
    grads = {"a": jnp.ones(2), "b": None}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert jnp.abs(updates["a"]).min() > 0.01
    np.testing.assert_allclose(updates["b"], jnp.zeros((2, 3)), atol=1e-6)


def test_missing_params_are_refused_by_the_given_name():
    optimizer = optimizers.reparameterize(optax.sgd(0.1), exp, log, name="log_weights")
    with pytest.raises(ValueError, match="log_weights needs the current parameters"):
        optimizer.update(start(), optimizer.init(start()))
