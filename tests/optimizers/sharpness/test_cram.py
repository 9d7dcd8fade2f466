"""CrAM: what is pruned at the point, and whose gradient counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers.sharpness.cram import cram
from gnomon.optimizers.sharpness.sam import sam
from gnomon_contract import Row, Verified, around_adamp

ROWS = (
    Row(
        "cram",
        around_adamp(cram),
        {"learning_rate": 0.05, "rho": 0.001},
        # Pruned weights have other minima.
        kwargs={"sparsities": (0.0,)},
        reads=("obj_fn",),
        covers=("cram",),
    ),
)
LAYERS = {"cram": lambda i, **s: cram(i, 0.1, patterns=((1, 2),), **s)}
VERIFIED = {"cram": Verified("I01", "NumPy", 1e-6)}
GENERATOR = np.random.default_rng(0)
PARAMS = {
    "up": {"kernel": GENERATOR.normal(size=(8, 6)), "bias": GENERATOR.normal(size=6)},
    "conv": {"kernel": GENERATOR.normal(size=(3, 3, 4, 2))},
    "odd": {"kernel": GENERATOR.normal(size=(5, 2))},
}
PARAMS = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), PARAMS)
GRADS = jax.tree.map(lambda w: jnp.sin(5 * w), PARAMS)


def step(there=None, steps=1, **given):
    """Minus the last update of SGD at the rate 1, and the points that were asked."""
    optimizer, points = cram(optax.sgd(1.0), **given), []

    def gradient(point):
        points.append(point)
        return jax.tree.map(jnp.ones_like, point) if there is None else there

    state = optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(GRADS, state, PARAMS, grad_fn=gradient)
    return jax.tree.map(jnp.negative, updates), points


@pytest.mark.parametrize("plus", [False, True])
def test_equals_a_numpy_transcription(plus):
    """The mask has exactly the numbers that were asked for, and cuts the gradient."""
    rho, share = 0.07, 0.7
    got, (point,) = step(rho=rho, sparsities=(share,), plus=plus)
    moved = jax.tree.map(lambda w, g: np.asarray(w + rho * g), PARAMS, GRADS)
    names = [("up", "kernel"), ("conv", "kernel"), ("odd", "kernel")]
    ranked = np.sort(np.concatenate([abs(moved[a][b]).ravel() for a, b in names]))
    smallest = ranked[int(np.floor(share * len(ranked)))]
    left = 0
    for a, b in names:
        mask = abs(moved[a][b]) >= smallest
        left += mask.sum()
        np.testing.assert_allclose(point[a][b], mask * moved[a][b], rtol=1e-6)
        clean = np.asarray(GRADS[a][b]) if plus else 0
        np.testing.assert_allclose(got[a][b], mask + clean, rtol=1e-6)
    assert left == len(ranked) - int(np.floor(share * len(ranked)))
    np.testing.assert_allclose(point["up"]["bias"], moved["up"]["bias"], rtol=1e-6)


def test_patterns_leave_n_of_m_along_the_fan_in():
    _, (point,) = step(rho=0.0, patterns=((2, 4),))
    dense = np.asarray(point["up"]["kernel"]).reshape(2, 4, 6)
    assert ((dense != 0).sum(1) == 2).all()
    conv = np.asarray(point["conv"]["kernel"])
    assert ((conv != 0).sum(2) == 2).all()  # over input channels
    kept = np.sort(abs(dense), axis=1)[:, 2:].sum()
    everything = np.asarray(PARAMS["up"]["kernel"]).reshape(2, 4, 6)
    np.testing.assert_allclose(kept, np.sort(abs(everything), 1)[:, 2:].sum(), 1e-6)
    # A fan-in of 5 is not divided: nothing is pruned.
    np.testing.assert_array_equal(point["odd"]["kernel"], PARAMS["odd"]["kernel"])


def test_each_update_draws_one():
    _, points = step(rho=0.0, sparsities=(0.25, 0.75), steps=24)
    size = sum(PARAMS[name]["kernel"].size for name in PARAMS)
    zeros = [
        sum(int(jnp.sum(point[name]["kernel"] == 0)) for name in PARAMS)
        for point in points
    ]
    found = {zero / size for zero in zeros}
    assert found == {np.floor(share * size) / size for share in (0.25, 0.75)}
    _, again = step(rho=0.0, sparsities=(0.25, 0.75), steps=24)
    jax.tree.map(np.testing.assert_array_equal, again, points)


def test_without_pruning_it_is_sam_without_a_norm():
    length = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(GRADS)))

    def curved(point):
        return jax.tree.map(jnp.tanh, point)

    def update(optimizer):
        state = optimizer.init(PARAMS)
        return optimizer.update(GRADS, state, PARAMS, grad_fn=curved)[0]

    got = update(cram(optax.sgd(1.0), 0.05, sparsities=(0.0,), plus=False))
    wanted = update(sam(optax.sgd(1.0), 0.05 * length))
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7), got, wanted
    )


def test_refusals():
    with pytest.raises(ValueError, match=r"sparsities=1\.5"):
        cram(optax.sgd(1.0), sparsities=(1.5,))
    with pytest.raises(ValueError, match=r"patterns has \(5, 4\)"):
        cram(optax.sgd(1.0), patterns=((5, 4),))
    with pytest.raises(ValueError, match="there has to be one to draw"):
        cram(optax.sgd(1.0), sparsities=())
