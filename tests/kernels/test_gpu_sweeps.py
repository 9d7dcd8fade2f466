"""GPU kernels of steps that need sums first: lowered for CUDA, run on a simulator.

Mosaic GPU is used as it is since jax 0.11; before, the operations say so.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.kernels import Gpu, fadam, fixed_norm, variance
from gnomon.kernels.engine.choice import GPU_NEEDS_JAX

# Few blocks, so that each has several rows to go over.
FEW = Gpu(blocks=2, fewest=4)

FADAM = dict(learning_rate=0.1, count=3, b2=0.99)


def fadam_step(w, g, m, root, **kwargs):
    return fadam.step(w, g, m, root, **FADAM, **kwargs)


def fixed_norm_step(w, u, norm, **kwargs):
    return fixed_norm.step(w, u, norm, angle=0.3, tangent=True, **kwargs)


def variance_step(w, u, target, **kwargs):
    return variance.step(w, u, target=target, **kwargs)


def arrays(op, shape, dtype="float32", reduce=None, stack=(), seed=0):
    """What a step of the operation takes, of which nothing is small or special."""
    rng = np.random.default_rng(seed)
    w, g, m, root = (rng.normal(size=shape) for _ in range(4))
    if op is fadam:
        state = [(w, dtype), (g, dtype), (m, "float32"), (root**2, "float32")]
        return [jnp.asarray(x).astype(of) for x, of in state]
    layer = tuple(axis for axis in range(len(shape)) if axis not in stack)
    axes = layer if reduce is None or op is variance else reduce
    per_unit = [1 if axis in axes else n for axis, n in enumerate(shape)]
    sizes = rng.uniform(0.5, 1.0, size=per_unit)
    return [jnp.asarray(w, dtype), jnp.asarray(g, dtype), jnp.asarray(sizes, "float32")]


STEPS = {fadam: fadam_step, fixed_norm: fixed_norm_step, variance: variance_step}
OPS = pytest.mark.parametrize(
    "op", STEPS, ids=lambda op: op.__name__.rpartition(".")[2]
)


@pytest.mark.parametrize("op", STEPS)
def test_older_jax_says_what_it_needs(op, monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    with pytest.raises(ValueError, match=r"GPU kernels need jax >= 0\.11"):
        op.explain(implementation="gpu")


if jax.__version_info__[:2] >= GPU_NEEDS_JAX:

    def agree(op, inputs, **kwargs):
        """The kernel against the definition in float64."""
        step = functools.partial(STEPS[op], **kwargs)
        got = jax.jit(functools.partial(step, implementation=FEW))(*inputs)
        with jax.enable_x64(True):
            exact = [jnp.asarray(np.asarray(x, np.float64)) for x in inputs]
            want = jax.jit(functools.partial(step, implementation="xla"))(*exact)
        for ours, theirs in zip(*map(jax.tree.leaves, (got, want)), strict=True):
            bound = 2e-6 if ours.dtype == jnp.float32 else 2**-8
            error = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs))
            assert error.max() <= bound * np.abs(theirs).max()
        moved = jax.tree.leaves(got)[0]
        assert np.all(np.asarray(moved) != np.asarray(inputs[0]))

    @OPS
    @pytest.mark.parametrize(
        ("shape", "stack"),
        [
            ((2, 4, 128), (0,)),  # layers that a block holds
            ((40, 256), ()),  # one that is summed in strips
            ((2, 3, 5), (0,)),  # ragged ones, which XLA sums, many in a block
            ((1201,), ()),  # one of a block, pieces of it and single numbers
        ],
        ids=["held", "strips", "ragged", "vector"],
    )
    def test_moves_every_layer(op, shape, stack, simulated):
        agree(op, arrays(op, shape, stack=stack), stack=stack)

    @pytest.mark.parametrize(
        ("shape", "axis"),
        [((3, 128), 1), ((2, 4096), 1), ((2, 1), 1), ((9, 128), 0), ((128, 16), 0)],
        ids=["rows", "long rows", "numbers", "columns", "strips of columns"],
    )
    def test_fixed_norm_of_units(shape, axis, simulated):
        """Units that a block holds, in registers or shared memory, and those not."""
        inputs = arrays(fixed_norm, shape, reduce=(axis,))
        agree(fixed_norm, inputs, reduce=(axis,))

    def test_fadam_raises_to_other_powers(simulated):
        """By logarithms, and with a number whose Fisher information is zero."""
        w, g, m, root = arrays(fadam, (2, 128))
        inputs = [w, g.at[0, 0].set(0), m, root.at[0, 0].set(0)]
        agree(fadam, inputs, p=0.35, eps_rule="max", clip_rule="scale")

    @pytest.mark.parametrize(
        ("op", "shape", "options"),
        [
            (fadam, (4, 256), {}),
            (fixed_norm, (2, 64, 32), dict(reduce=(1,), stack=(0,))),
            (fixed_norm, (2, 128, 3), dict(reduce=(1,))),
            (fixed_norm, (64, 2, 32), dict(reduce=(0,), stack=(1,))),
        ],
        ids=["registers", "strips", "transposed registers", "transposed strips"],
    )
    def test_bfloat16_rounds_as_the_definition_does(op, shape, options, simulated):
        """Each number goes to one of two neighbors, and nearly always to the same.

        What is rounded differs in its last digit, so a draw at the edge may differ.
        """
        inputs = arrays(op, shape, "bfloat16", **options)
        step = functools.partial(STEPS[op], key=jax.random.key(1), **options)
        ours, theirs = (
            np.asarray(
                jax.tree.leaves(
                    jax.jit(functools.partial(step, implementation=by))(*inputs)
                )[0],
                np.float32,
            )
            for by in (FEW, "xla")
        )
        np.testing.assert_allclose(ours, theirs, rtol=2**-7)
        assert np.mean(ours != theirs) < 0.01

    def test_shards_of_layers_and_of_units(simulated):
        """Layers on two devices; and one layer that two devices share."""
        mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
        inputs = arrays(variance, (2, 2, 128), stack=(0,))
        for spec in (("x",), (None, "x")):
            lies = jax.sharding.NamedSharding(mesh, jax.P(*spec))
            whole = jax.sharding.NamedSharding(mesh, jax.P())
            placed = [jax.device_put(x, lies) for x in inputs[:2]]
            placed.append(jax.device_put(inputs[2], whole))
            agree(variance, placed, stack=(0,), sharding=lies)
