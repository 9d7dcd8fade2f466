"""GaLore and its kin: Adam at full rank, a published port, NumPy, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.fft

from gnomon.experiments.config.resolve import build
from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon.optimizers import (
    diagnostics,
    galore,
    observed,
    weight_norm,
)
from gnomon.optimizers.lowrank.bases import BASES, dct_matrix
from gnomon.optimizers.lowrank.galore import scale_by_galore
from gnomon_contract import Verified

GIVEN = {"galore": dict(rank=2)}
LAYERS = {"galore": lambda **s: galore(0.1, rank=2, every=2, weight_decay=0.1, **s)}
VERIFIED = {
    "galore": Verified("", "pytorch-optimizer 4.1.0 GaLore", 1e-12),
    "q_galore": Verified("F01", "NumPy", 1e-12, "https://arxiv.org/abs/2407.08296"),
    "dct_adamw": Verified("F03", "NumPy", 1e-12, "https://arxiv.org/abs/2505.17967"),
    "grad_norm_lorp": Verified(
        "F07", "weight_norm of Adam", 1e-12, "https://arxiv.org/abs/2412.19616"
    ),
}
B1, B2 = 0.8, 0.9
DECAYS = dict(b1=B1, b2=B2, eps=0.0)


def test_equals_a_published_port(recorded):
    given = dict(b1=0.8, b2=0.95, eps=0.0, rank=2, every=1000, matrices="kernel")
    assert recorded("galore", galore(0.05, **given)) <= VERIFIED["galore"].within


def test_lazy_refreshes_equal_numpy(beside, numpy_rules):
    """Some layers settle and others do not, in a stack, too."""
    adam, leading = numpy_rules
    seen = set()

    def rule(x, memory, t):
        if x.ndim == 1:
            return adam(x, memory, t, B1, B2)
        if t == 1:
            memory |= dict(p=leading(x, 2), last=t, interval=1, cosines=[])
        elif t - memory["last"] >= memory["interval"]:
            p = leading(x, 2)
            memory["cosines"].append(abs(p[:, 0] @ memory["p"][:, 0]))
            last = memory["cosines"][-5:]
            if len(last) == 5 and np.mean(last) >= 0.55:
                memory["interval"] *= 2
            memory |= dict(p=p, last=t)
        seen.add(memory["interval"])
        p = memory["p"]
        return 0.25 * p @ adam(p.T @ x, memory, t, B1, B2)

    ours = scale_by_galore(
        rank=2, every=1, lazy_above=0.55, matrices="kernel", **DECAYS
    )
    assert beside(ours, rule, steps=20) <= VERIFIED["q_galore"].within
    assert {1, 2} <= seen


def test_a_subspace_that_has_settled_is_asked_for_less_and_less():
    """With cosines of one the interval doubles from the sixth refresh on."""
    w = {"kernel": jnp.array([[2.0, 0.0], [0.0, 1.0]])}
    optimizer = galore(0.0, rank=1, lazy_above=0.4, every=1)
    state, stretches = optimizer.init(w), []
    update = jax.jit(optimizer.update)
    for _ in range(13):
        _, state = update(w, state, w)
        stretches.append(int(diagnostics(state)["stretch"]))
    assert stretches == [1] * 5 + [2, 2, 4, 4, 4, 4, 8, 8]


def test_dct_moments_follow_their_frequencies(beside, numpy_rules):
    adam, _ = numpy_rules

    def rule(x, memory, t):
        if x.ndim == 1:
            return adam(x, memory, t, B1, B2)
        turned = scipy.fft.dct(x, norm="ortho", axis=0)
        chosen = np.zeros((len(x), 1))
        chosen[np.argsort(-np.abs(turned).sum(1))[:2]] = 1
        # Moments of all frequencies, zero where one is left out.
        for moment in "mv":
            memory[moment] = memory.get(moment, 0.0) * chosen
        u = chosen * np.nan_to_num(adam(chosen * turned, memory, t, B1, B2))
        return scipy.fft.idct(u, norm="ortho", axis=0)

    given = dict(rank=2, basis="dct", transport="rotate", every=1, scale=1.0)
    line = {k: v for k, v in OPTIMIZERS["dct_adamw"].items() if k in given}
    assert line == given | {"rank": line["rank"]}
    ours = scale_by_galore(matrices="kernel", **given, **DECAYS)
    with np.errstate(invalid="ignore"):
        assert beside(ours, rule) <= VERIFIED["dct_adamw"].within


@pytest.mark.parametrize("inside", [False, True])
def test_at_full_rank_and_without_turns_it_is_adam(inside, x64):
    """Plainly, and on the directions and scales of weight normalization."""
    generator = np.random.default_rng(0)
    w = {"kernel": jnp.asarray(generator.normal(size=(4, 3))), "bias": jnp.ones(3)}
    ours = galore(0.05, rank=None, basis="rows", scale=1.0, every=2, matrices="kernel")
    adam = optax.adam(0.05, eps=1e-6)
    found = []
    for optimizer in (ours, adam):
        optimizer = weight_norm(optimizer) if inside else optimizer
        params, state = w, optimizer.init(w)
        update = jax.jit(optimizer.update)
        with jax.numpy_dtype_promotion("standard"):
            for t in range(5):
                grads = jax.tree.map(lambda x, t=t: jnp.sin((t + 1) * x), params)
                updates, state = update(grads, state, params)
                params = optax.apply_updates(params, updates)
        found.append(params)
    within = VERIFIED["grad_norm_lorp"].within
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=within), *found)


def test_grad_norm_lorp_projects_directions_alone():
    w = {"mlp": {"kernel": jnp.cos(jnp.arange(600.0)).reshape(20, 30)}}
    state = build(OPTIMIZERS["grad_norm_lorp"]).init(w)
    moments = state.inner[0].mu
    assert moments.direction["mlp"]["kernel"].shape == (1, 16, 30)
    assert moments.scale["mlp"]["kernel"].shape == (30,)


def test_sizes_of_the_state_and_what_passes():
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.bfloat16)  # noqa: E731
    w = {
        "embed": {"embedding": shape(9, 5)},
        "mlp": {"kernel": shape(9, 5), "bias": shape(5)},
        "small": {"kernel": shape(2, 5)},
        "blocks": {"stacked": {"query": {"kernel": shape(3, 4, 2, 3)}}},
    }

    def sizes(**given):
        state = jax.eval_shape(scale_by_galore(rank=2, **given).init, w)
        assert {x.dtype.name for x in jax.tree.leaves(state.nu)} == {"float32"}
        mu, basis = state.mu, state.basis
        assert mu["embed"]["embedding"].shape == (9, 5)
        assert mu["small"]["kernel"].shape == (2, 5)
        query = basis["blocks"]["stacked"]["query"]["kernel"].shape
        return mu["mlp"]["kernel"].shape, basis["mlp"]["kernel"].shape, query

    assert sizes() == ((1, 2, 9), (1, 5, 2), (3, 4, 2))
    assert sizes(side="larger") == ((1, 2, 5), (1, 9, 2), (3, 6, 2))
    assert sizes(basis="dct") == ((1, 2, 9), (1, 2), (3, 2))


def test_steps_lie_in_the_subspace_and_it_says_how_much_it_holds():
    g = {"kernel": jnp.diag(jnp.array([3.0, 2.0, 1.0]))}
    optimizer = scale_by_galore(rank=2, scale=1.0, matrices="kernel")
    with observed() as seen:
        u, _ = optimizer.update(g, optimizer.init(g), g)
    np.testing.assert_allclose(u["kernel"], jnp.diag(jnp.array([1.0, 1, 0])), atol=1e-5)
    np.testing.assert_allclose(seen["captured"], 13 / 14, rtol=1e-6)


def test_the_dct_is_orthonormal_and_of_type_two(x64):
    x = np.random.default_rng(0).normal(size=(2, 7, 3))
    c = dct_matrix(7, jnp.float64)
    np.testing.assert_allclose(c @ c.T, np.eye(7), atol=1e-15)
    np.testing.assert_allclose(
        c @ x, scipy.fft.dct(x, norm="ortho", axis=1), atol=1e-14
    )
    # A gradient in the span of some frequencies is held whole.
    x = c.T[:, [1, 4]] @ x[:, :2]
    p = BASES["dct"].vectors(BASES["dct"].find(x, 2), 7)
    np.testing.assert_allclose(p @ jnp.swapaxes(p, 1, 2) @ x, x, atol=1e-14)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(rank=1.5), "rank=1.5 is not a whole number"),
        (dict(rank=2, basis="qr"), "basis='qr'"),
        (dict(rank=2, side="left"), "side='left'"),
        (dict(rank=2, transport="reset"), "transport='reset'"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ValueError, match=message):
        galore(0.1, **given)
