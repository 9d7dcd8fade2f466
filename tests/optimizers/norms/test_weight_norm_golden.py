"""Weight normalization against PyTorch's, from recorded trajectories."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import weight_norm

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"

# The path of each leaf in Flax, and how PyTorch's leaf, units first, becomes Flax's.
LEAVES = {
    "dense": ("dense/kernel", lambda w: w.T),
    "conv": ("conv/kernel", lambda w: w.transpose(2, 3, 1, 0)),
    "embedding": ("embed/embedding", lambda w: w),
    "query": ("attention/query/kernel", lambda w: w.T.reshape(3, 2, 2)),
    "out": ("attention/out/kernel", lambda w: w.T.reshape(2, 2, 3)),
    "bias": ("dense/bias", lambda w: w),
}
INNER = {
    "sgd": optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.05, momentum=0.9)),
    "adam": optax.adam(0.03, b1=0.9, b2=0.99, eps=1e-8),
    "adamw": optax.adamw(0.03, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.05),
}


@pytest.mark.parametrize("run", INNER)
def test_equals_pytorch(x64, run):
    with np.load(GOLDEN / "weight_norm.npz") as record:
        golden = dict(record)
    assert any(v.startswith("torch==2.13.0") for v in golden["versions"])
    recorder = runpy.run_path(str(GOLDEN / "record_weight_norm.py"))

    def tree(prefix, at):
        return {
            path: jnp.asarray(to_flax(at(golden[f"{prefix}/{name}"])))
            for name, (path, to_flax) in LEAVES.items()
        }

    optimizer = weight_norm(INNER[run], eps=0)
    params = tree("weights", lambda w: w)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, noise):
        # The pull to zero is elementwise, so it is the same in either layout.
        grads = jax.tree.map(recorder["gradient"], params, noise)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for i in range(recorder["STEPS"]):
        noise = tree("noise", lambda n, i=i: n[i].astype(np.float64))
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it in float64
            params, state = step(params, state, noise)
        if i + 1 in recorder["RECORDED"]:
            row = recorder["RECORDED"].index(i + 1)
            for path, wanted in tree(run, lambda w, row=row: w[row]).items():
                np.testing.assert_allclose(
                    params[path], wanted, rtol=0, atol=1e-10, err_msg=path
                )
