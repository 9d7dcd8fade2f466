"""AdamP and SGDP against the authors' PyTorch package, from recorded trajectories."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"

# How PyTorch's leaf, units first, becomes Flax's, and back.
TO_FLAX = {
    "dense": lambda w: w.T,
    "conv": lambda w: w.transpose(2, 3, 1, 0),
    "embedding": lambda w: w,
    "query": lambda w: w.T.reshape(3, 2, 2),
    "out": lambda w: w.T.reshape(2, 2, 3),
    "bias": lambda w: w,
}
TO_TORCH = {
    "dense": lambda w: w.T,
    "conv": lambda w: w.transpose(3, 2, 0, 1),
    "embedding": lambda w: w,
    "query": lambda w: w.reshape(3, 4).T,
    "out": lambda w: w.reshape(4, 3).T,
    "bias": lambda w: w,
}
OPTIMIZERS = {
    "adamp": lambda lr, **options: optimizers.adamp(lr, b1=0.9, b2=0.99, **options),
    "adamp_nesterov": lambda lr, **options: optimizers.adamp(
        lr, b1=0.9, b2=0.99, nesterov=True, **options
    ),
    "sgdp_aliased": lambda lr, **options: optimizers.sgdp(
        lr, momentum=0.9, dampening=0.1, project_buffer=True, **options
    ),
    "sgdp_nesterov": lambda lr, **options: optimizers.sgdp(
        lr, momentum=0.9, nesterov=True, **options
    ),
}


def tree(leaves):
    """Leaves by their short names, at the paths that Flax gives them."""
    return {
        "conv": {"kernel": leaves["conv"]},
        "dense": {"kernel": leaves["dense"], "bias": leaves["bias"]},
        "embed": {"embedding": leaves["embedding"]},
        "attention": {
            "query": {"kernel": leaves["query"]},
            "out": {"kernel": leaves["out"]},
        },
    }


def leaves(tree):
    return {
        "conv": tree["conv"]["kernel"],
        "dense": tree["dense"]["kernel"],
        "bias": tree["dense"]["bias"],
        "embedding": tree["embed"]["embedding"],
        "query": tree["attention"]["query"]["kernel"],
        "out": tree["attention"]["out"]["kernel"],
    }


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "adamp.npz") as record:
        return dict(record)


@pytest.mark.parametrize("run", OPTIMIZERS)
def test_equals_the_authors_package(x64, golden, run):
    assert "adamp==0.3.0" in golden["versions"]
    recorder = runpy.run_path(str(GOLDEN / "record_adamp.py"))
    options = dict(recorder["OPTIONS"])
    optimizer = OPTIMIZERS[run](options.pop("lr"), **options)
    names = tuple(TO_FLAX)
    params = tree({n: jnp.asarray(TO_FLAX[n](golden[f"weights/{n}"])) for n in names})
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for i in range(recorder["STEPS"]):
        weights = {n: TO_TORCH[n](np.asarray(w)) for n, w in leaves(params).items()}
        grads = {
            n: recorder["gradient"](w, golden[f"noise/{n}"][i].astype(np.float64), i)
            for n, w in weights.items()
        }
        grads = tree({n: jnp.asarray(TO_FLAX[n](g)) for n, g in grads.items()})
        params, state = step(params, state, grads)
        if i + 1 in recorder["RECORDED"]:
            at = recorder["RECORDED"].index(i + 1)
            for n, w in leaves(params).items():
                wanted = TO_FLAX[n](golden[f"{run}/{n}"][at])
                np.testing.assert_allclose(w, wanted, rtol=0, atol=1e-10, err_msg=n)


def test_projecting_the_buffer_is_another_trajectory(golden):
    """The recorded buffer mode is not what the paper's rule gives, so the flag is
    needed; with Nesterov there is nothing to tell apart."""
    weights = {n: jnp.asarray(golden["weights/dense"].T) for n in ("kernel",)}
    grads = {"kernel": jnp.asarray(golden["noise/dense"][0].T)}

    def after_two_steps(**flags):
        optimizer = optimizers.sgdp(0.1, momentum=0.9, delta=1e9, **flags)
        params, state = weights, optimizer.init(weights)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params["kernel"]

    published, aliased = after_two_steps(), after_two_steps(project_buffer=True)
    assert jnp.abs(published - aliased).max() > 1e-3
    np.testing.assert_array_equal(
        after_two_steps(nesterov=True),
        after_two_steps(nesterov=True, project_buffer=True),
    )
