"""AdamP's step on moments in eight bits: its kernels beside AdamP between two codings.

The kernel is that of Adam's step; what is new is one coefficient for every unit.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.kernels import Gpu, adam_8bit, adamp
from gnomon.kernels.companding import decode, encode
from gnomon.kernels.engine.choice import GPU_NEEDS_JAX

HYPERS = dict(learning_rate=0.1, count=3, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)

# Shape, axes inside a unit, axes over layers, and along which the gradient is across
# the parameter: there AdamP projects.
CASES = {
    "rows": ((6, 300), (1,), (), 1),
    "columns": ((6, 300), (0,), (), 0),
    "layer": ((6, 40), (1,), (), None),
    "stacked": ((2, 4, 300), (1,), (0,), 1),
}
CALLS = [("tpu", case) for case in CASES]
if jax.__version_info__[:2] >= GPU_NEEDS_JAX:
    CALLS.append((Gpu(blocks=2), "stacked"))


@pytest.fixture
def on_cpu(request, interpreted):
    """Runs the kernels of both chips on CPU."""
    if jax.__version_info__[:2] >= GPU_NEEDS_JAX:
        request.getfixturevalue("simulated")


def leaf(shape, across):
    """(w, g, m, v); the gradient is across every unit, or across the layer alone."""
    rng = np.random.default_rng(0)
    w, g, m, v = (rng.normal(size=shape) for _ in range(4))
    if across is None:
        g += 3 * w * (1 - 2 * (np.arange(len(w)) % 2))[:, None]
    dot, square = (np.sum(x * w, across, keepdims=True) for x in (g, w))
    return [jnp.asarray(x, jnp.float32) for x in (w, g - w * dot / square, m, v**2)]


@pytest.mark.parametrize(("implementation", "case"), CALLS)
def test_the_kernel_is_its_definition(implementation, case, on_cpu):
    """To the code; and the parameter is where AdamP puts it, not Adam."""
    shape, reduce, stack, across = CASES[case]
    units = dict(reduce=reduce, stack=stack)

    @jax.jit
    def steps(w, g, m, v):
        coded = w, g, encode(m, "int8"), encode(v, "uint8")
        step = functools.partial(adamp.step, *coded, **HYPERS, **units)
        moments = map(decode, coded[2:])
        plain = adamp.step(w, g, *moments, **HYPERS, **units)
        adam = adam_8bit.step(*coded, **HYPERS)
        return step(implementation=implementation), plain.w, adam

    got, want, adam = steps(*leaf(shape, across))
    bound = 2e-6 * np.abs(want).max()
    np.testing.assert_allclose(got.w, want, rtol=0, atol=bound)
    assert np.abs(want - adam.w).max() > 1000 * bound
    # The moments know nothing of projections.
    for a, b in ((got.m, adam.m), (got.v, adam.v)):
        np.testing.assert_allclose(a.scales, b.scales, rtol=1e-6)
        apart = np.abs(a.codes.astype(int) - b.codes.astype(int))
        assert apart.max() <= 1
        assert apart.mean() < 1e-3
