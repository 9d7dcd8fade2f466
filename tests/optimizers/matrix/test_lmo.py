"""Norms and their oracles: duality, equivalences, and which leaf has which."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import scale_by_lmo, shampoo
from gnomon.optimizers.matrix.dual_norms import NORMS, polar_factor
from gnomon_contract import Verified

VERIFIED = {"scale_by_lmo": Verified("A22", "NumPy", 1e-12)}
LAYERS = {
    "scale_by_lmo": lambda **s: optax.chain(
        scale_by_lmo({"embedding": "input", "hidden": "spectral"}, **s),
        optax.scale(-0.1),
    )
}
WITHIN = VERIFIED["scale_by_lmo"].within


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def factor(g):
    left, _, right = np.linalg.svd(g, full_matrices=False)
    return left @ right


# (lmo, dual norm, norm) of a matrix (inputs, outputs), written out.
def by_hand(name, g, w):
    n, m = g.shape
    sigma, largest = np.linalg.svd(g)[1], np.linalg.svd(w)[1].max()
    scale = {
        "spectral": np.sqrt(m / n),
        "spectral_max": np.sqrt(max(1, m / n)),
        "orthogonal": 1.0,
    }.get(name)
    if scale:
        return scale * factor(g), scale * sigma.sum(), largest / scale
    columns, rows = (np.linalg.norm(g, axis=a, keepdims=True) for a in (0, 1))
    w_columns, w_rows = (np.linalg.norm(w, axis=a).max() for a in (0, 1))
    root = np.sqrt(n), np.sqrt(m)
    return {
        "sign": (np.sign(g) / n, abs(g).sum() / n, n * abs(w).max()),
        "max": (np.sign(g), abs(g).sum(), abs(w).max()),
        "unit": (g / columns / root[0], columns.sum() / root[0], root[0] * w_columns),
        "input": (root[1] * g / rows, root[1] * rows.sum(), w_rows / root[1]),
        "input_mean": (
            root[1] * g / rows / n,
            root[1] * rows.sum() / n,
            w_rows / root[1] * n,
        ),
        "frobenius": (g / np.linalg.norm(g), np.linalg.norm(g), np.linalg.norm(w)),
    }[name]


@pytest.mark.parametrize("name", NORMS)
def test_each_norm_is_its_formula_and_its_oracle_is_dual_to_it(name, x64):
    norm, exact = NORMS[name], polar_factor("svd", 5)
    for shape in ((5, 3), (3, 5)):
        g, w = draw(*shape), draw(*shape, seed=1)
        lmo, dual, primal = by_hand(name, g, w)
        found = norm.lmo(jnp.asarray(g), exact)
        np.testing.assert_allclose(found, lmo, rtol=0, atol=WITHIN)
        np.testing.assert_allclose(norm.dual(g), dual, rtol=WITHIN)
        np.testing.assert_allclose(norm.primal(w), primal, rtol=WITHIN)
        # Of norm one, as steep as the dual norm, whatever the scale; no direction is
        # steeper.
        np.testing.assert_allclose(norm.primal(found), 1, rtol=WITHIN)
        np.testing.assert_allclose(np.sum(g * found), dual, rtol=WITHIN)
        np.testing.assert_allclose(
            norm.lmo(jnp.asarray(1e150 * g), exact), lmo, atol=WITHIN
        )
        assert np.sum(g * w) <= dual * primal
    assert not norm.lmo(jnp.zeros((2, 3)), exact).any()


def step(optimizer, g):
    return optimizer.update(g, optimizer.init(g), g)[0]


def test_without_averages_it_is_sign_descent_shampoo_and_muon(x64):
    g = {"kernel": jnp.asarray(draw(4, 6)), "bias": jnp.asarray(draw(6))}
    with jax.numpy_dtype_promotion("standard"):
        adam = step(optax.scale_by_adam(b1=0.0, b2=0.0, eps=0.0), g)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=WITHIN),
        step(scale_by_lmo("max"), g),
        adam,
    )
    wanted = step(scale_by_lmo("orthogonal", method="svd"), g)["kernel"]
    np.testing.assert_allclose(wanted, factor(g["kernel"]), atol=WITHIN)
    none = dict(b1=0.0, b2=0.0, damping=0.0, graft="none", matrices="kernel")
    for sides in ("both", "smaller"):
        found = step(shampoo(1.0, sides=sides, **none), g)["kernel"]
        np.testing.assert_allclose(found, -wanted, atol=1e-9)
    # And optax's Muon, which has the same polynomial and no momentum here.
    muon = optax.contrib.scale_by_muon(
        beta=0.0,
        eps=0.0,
        nesterov=False,
        weight_dimension_numbers={"kernel": optax.contrib.MuonDimensionNumbers()},
    )
    with jax.numpy_dtype_promotion("standard"):
        theirs = step(muon, {"kernel": g["kernel"]})["kernel"]
    ours = step(scale_by_lmo("orthogonal"), g)["kernel"]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # its numbers are float32


def test_times_the_dual_norm_it_is_steepest_descent(x64):
    g = {"kernel": jnp.asarray(draw(4, 6))}
    for name, norm in NORMS.items():
        plain = step(scale_by_lmo(name, method="svd"), g)["kernel"]
        found = step(scale_by_lmo(name, method="svd", by_dual_norm=True), g)["kernel"]
        dual = norm.dual(g["kernel"])
        np.testing.assert_allclose(found, dual * plain, rtol=1e-10, atol=WITHIN)


def test_momentum_and_roles(x64):
    """Averages by hand; a role without a norm has its gradient."""
    shapes = {
        "embed": {"embedding": (5, 3)},
        "up": {"kernel": (3, 4), "bias": (4,)},
        "conv": {"kernel": (2, 2, 3, 4)},
        "head": {"kernel": (4, 5)},
    }
    is_shape = dict(is_leaf=lambda x: isinstance(x, tuple))
    drawn = [
        jax.tree.map(lambda s, i=i: jnp.asarray(draw(*s, seed=i)), shapes, **is_shape)
        for i in range(2)
    ]
    norms = dict(embedding="input", hidden="spectral", bias="input")
    b = 0.7
    for momentum in ("average", "nesterov"):
        options = dict(momentum=momentum, b1=b, method="svd")
        direction = scale_by_lmo(norms, **options)
        state = direction.init(drawn[0])
        for g in drawn:
            u, state = direction.update(g, state)
        m = jax.tree.map(lambda x, y: b * (1 - b) * x + (1 - b) * y, *drawn)
        if momentum == "nesterov":
            m = jax.tree.map(lambda x, y: b * x + (1 - b) * y, m, drawn[1])
        m = jax.tree.map(np.asarray, m)
        token, up, bias = m["embed"]["embedding"], m["up"]["kernel"], m["up"]["bias"]
        conv = m["conv"]["kernel"].reshape(12, 4)
        for found, wanted in (
            (u["embed"]["embedding"], np.sqrt(3) * token / rows(token)),
            (u["up"]["kernel"], np.sqrt(4 / 3) * factor(up)),
            (u["up"]["bias"], bias / np.sqrt(np.mean(bias**2))),
            # By Scion's convention, over the four places of the kernel.
            (
                u["conv"]["kernel"],
                np.sqrt(4 / 3) / 4 * factor(conv).reshape(2, 2, 3, 4),
            ),
            (u["head"]["kernel"], drawn[1]["head"]["kernel"]),
        ):
            np.testing.assert_allclose(found, wanted, atol=WITHIN)


def rows(x):
    return np.linalg.norm(x, axis=1, keepdims=True)


def test_polar_express_is_nearer_than_newton_schulz():
    g = jnp.asarray(draw(32, 32), jnp.float32)
    spread = {}
    for method in ("newton_schulz", "polar_express", "svd"):
        values = np.linalg.svd(polar_factor(method, 5)(g), compute_uv=False)
        spread[method] = np.abs(values - 1).mean()
    assert spread["svd"] < 1e-5 < spread["polar_express"] < spread["newton_schulz"]


def test_what_is_unknown_is_refused():
    for given, message in (
        (dict(norms="spectrum"), "norms='spectrum' is not one of"),
        (dict(norms={"body": "sign"}), "'body' is not one of"),
        (dict(momentum="heavy"), "momentum='heavy'"),
        (dict(method="qr"), "method='qr'"),
        (dict(steps=0), "steps=0"),
    ):
        with pytest.raises(ValueError, match=message):
            scale_by_lmo(**given)
