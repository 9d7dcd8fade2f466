"""SAM and ASAM: the displacement, on which leaves, and the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.optimizers import adamp
from gnomon.optimizers.sharpness.sam import asam, normalization_leaves, sam
from gnomon_contract import Row, Verified, around_adamp

ROWS = (
    Row(
        "sam",
        around_adamp(sam),
        {"learning_rate": 0.05, "rho": 0.001},
        reads=("obj_fn",),
        covers=("sam",),
    ),
    Row(
        "asam",
        around_adamp(asam),
        {"learning_rate": 0.05, "rho": 0.001, "eta": 0.01},
        kwargs={"view": "layer", "norm": "max"},
        reads=("obj_fn",),
        covers=("asam",),
    ),
)
LAYERS = {
    "sam": lambda i, **s: sam(i, 0.1, perturbed="kernel", **s),
    "asam": lambda i, **s: asam(i, 0.1, view="layer", **s),
    "normalization_leaves": None,  # by names alone
}
VERIFIED = {
    "sam": Verified("H04", "NumPy", 1e-12),
    "asam": Verified("H04", "NumPy", 1e-12),
}
PARAMS = {
    "norm": {"scale": jnp.array([1.0, 0.5]), "bias": jnp.array([0.2, -0.1])},
    "up": {"kernel": jnp.array([[1.0, -2.0], [0.0, 3.0]]), "bias": jnp.array([0.5])},
}
GRADS = jax.tree.map(lambda w: jnp.cos(3 * w) - 0.3, PARAMS)


def displacement(make, grads=GRADS, params=PARAMS):
    """From the weights to the point that the gradient is asked at."""
    optimizer, points = make(optax.sgd(1.0)), []

    def gradient(point):
        points.append(point)
        return grads

    optimizer.update(grads, optimizer.init(params), params, grad_fn=gradient)
    return jax.tree.map(jnp.subtract, points[0], params)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_equals_a_numpy_transcription(x64):
    """Momentum SGD on a quadratic form, whose gradient is known at every point."""
    rate, momentum, rho, eta = 0.05, 0.9, 0.3, 0.02
    generator = np.random.default_rng(0)
    root = generator.normal(size=(6, 6))
    matrix = root @ root.T / 6
    first = generator.normal(size=6)

    def run(optimizer):
        w = {"kernel": jnp.asarray(first).reshape(3, 2)}
        state = optimizer.init(w)

        def gradient(tree):
            return {"kernel": (matrix @ tree["kernel"].ravel()).reshape(3, 2)}

        for _ in range(25):
            updates, state = optimizer.update(gradient(w), state, w, grad_fn=gradient)
            w = optax.apply_updates(w, updates)
        return w["kernel"].ravel()

    def transcribed(scale, ball):
        w, trace = first.copy(), np.zeros(6)
        for _ in range(25):
            g, t = matrix @ w, scale(w)
            unit = np.sign(g) if ball == "max" else t * g / np.linalg.norm(t * g)
            trace = momentum * trace + matrix @ (w + rho * t * unit)
            w = w - rate * trace
        return w

    inner = optax.sgd(rate, momentum=momentum)
    for optimizer, scale, ball in (
        (sam(inner, rho), np.ones_like, "l2"),
        (asam(inner, rho, eta=eta), lambda w: abs(w) + eta, "l2"),
        (asam(inner, rho, eta=eta, norm="max"), lambda w: abs(w) + eta, "max"),
        (
            asam(inner, rho, eta=eta, view="layer"),
            lambda w: np.full(6, np.linalg.norm(w) + eta),
            "l2",
        ),
    ):
        np.testing.assert_allclose(
            run(optimizer), transcribed(scale, ball), rtol=0, atol=1e-12
        )


@settings(deadline=None, max_examples=25)
@given(rho=st.floats(0, 10), chosen=st.sampled_from(["kernel", "bias", "norm", ""]))
def test_the_length_is_rho_on_what_is_perturbed_and_0_elsewhere(rho, chosen):
    moved = displacement(lambda inner: sam(inner, rho, perturbed=chosen))
    np.testing.assert_allclose(np.linalg.norm(flat(moved)), rho, rtol=1e-5, atol=1e-6)
    for path, leaf in jax.tree_util.tree_leaves_with_path(moved):
        if chosen not in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("scale_biases", [False, True])
def test_in_units_of_the_weights_the_length_is_rho(scale_biases):
    eta = 0.01

    def units(path, w):
        raw = not scale_biases and "bias" in jax.tree_util.keystr(path)
        return jnp.ones_like(w) if raw else jnp.abs(w) + eta

    scales = flat(jax.tree_util.tree_map_with_path(units, PARAMS))

    def moved(norm):
        return flat(
            displacement(
                lambda inner: asam(
                    inner, 0.5, eta=eta, norm=norm, scale_biases=scale_biases
                )
            )
        )

    np.testing.assert_allclose(np.linalg.norm(moved("l2") / scales), 0.5, rtol=1e-5)
    np.testing.assert_allclose(abs(moved("max") / scales), 0.5, rtol=1e-4)
    assert (np.sign(moved("max")) == np.sign(flat(GRADS))).all()


@pytest.mark.parametrize("make", [sam, asam])
def test_without_a_length_it_is_the_optimizer(make):
    def loss(tree):
        return sum(jnp.sum(jnp.cosh(leaf)) for leaf in jax.tree.leaves(tree))

    inner = adamp(0.1)
    optimizer = make(inner, 0.0)
    grads = jax.grad(loss)(PARAMS)
    got, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS, obj_fn=loss)
    wanted, _ = inner.update(grads, inner.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_a_gradient_of_zero_displaces_nothing():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for make in (sam, asam):
        np.testing.assert_array_equal(flat(displacement(make, zeros)), 0)


def test_normalization_layers_by_their_names():
    names = {
        "LayerNorm_0/scale": True,
        "blocks/3/norm1/bias": True,
        "bn2/scale": True,
        "stem_ln/weight": True,
        "final_norm/scale": True,
        "blocks/stacked/norm/scale": True,
        "norm_mlp/kernel": False,
        "aln/bias": False,
        "mlp/bias": False,
        "head/kernel": False,
        "bias": False,
    }
    params = {}
    for name in names:
        *modules, leaf = name.split("/")
        node = params
        for module in modules:
            node = node.setdefault(module, {})
        node[leaf] = jnp.ones((2, 2) if "stacked" in name else 2)
    found = jax.tree_util.tree_leaves_with_path(normalization_leaves(params))
    said = {"/".join(str(key.key) for key in path): bool(on) for path, on in found}
    assert said == names
    only = displacement(lambda inner: sam(inner, 1.0, perturbed=normalization_leaves))
    assert np.all(flat(only["norm"]))
    assert not np.any(flat(only["up"]))
