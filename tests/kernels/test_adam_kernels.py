"""Adam's and AdamP's step on one leaf: definitions, TPU kernels, and what they cost."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gnomon.kernels import Tpu, adam, adamp, shapes
from gnomon.kernels.adam.program import program
from gnomon.kernels.engine.layout import (
    LANES,
    SUBLANES,
    flat_index,
    fold,
    layout,
    tile,
    tpu_order,
    unfold,
)
from gnomon.kernels.engine.tpu import blocks, runner

HYPERS = dict(learning_rate=0.1, count=3, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)
# Rounding of a computation in a dtype, with room for a different order of sums.
ROUNDING = {"float32": 2e-6, "bfloat16": 2**-8, "float64": 1e-13}


def leaf(shape, dtypes=("float32",) * 4, outcome="none", reduce=(), seed=0):
    """(w, g, m, v) whose gradient passes the test by unit, as a layer, or not."""
    generator = np.random.default_rng(seed)
    w, g, m, v = (generator.normal(size=shape) for _ in range(4))
    if outcome == "layer":
        g = g + 3 * w * (1 - 2 * (np.arange(w.size) % 2)).reshape(shape)
    axes = {"none": None, "unit": reduce, "layer": tuple(range(len(shape)))}[outcome]
    if axes is None:
        g = g + w
    else:
        g = g - w * np.sum(g * w, axes, keepdims=True) / np.sum(
            w * w, axes, keepdims=True
        )
    return tuple(
        jnp.asarray(x).astype(dtype)
        for x, dtype in zip((w, g, m, v**2), dtypes, strict=True)
    )


def oracle(w, g, m, v, reduce=(), delta=0.1, wd_ratio=0.1, nesterov=False):
    """AdamP, and without units Adam, in NumPy's float64."""
    w, g, m, v = (np.asarray(x, np.float64) for x in (w, g, m, v))
    h = HYPERS
    m = h["b1"] * m + (1 - h["b1"]) * g
    v = h["b2"] * v + (1 - h["b2"]) * g**2
    first = h["b1"] * m + (1 - h["b1"]) * g if nesterov else m
    v_hat = v / (1 - h["b2"] ** h["count"])
    p = first / (1 - h["b1"] ** h["count"]) / (np.sqrt(v_hat) + h["eps"])
    decay = h["weight_decay"]
    everything = tuple(range(w.ndim))
    for axes in (reduce, everything) if reduce else ():
        norm, grad_norm = (np.sqrt(np.sum(x * x, axes, keepdims=True)) for x in (w, g))
        cosine = np.sum(g * w, axes, keepdims=True) / (norm * grad_norm)
        length = np.prod([w.shape[axis] for axis in axes])
        if np.all(np.abs(cosine) < delta / np.sqrt(length)):
            unit = w / (norm + h["eps"])
            p = p - unit * np.sum(unit * p, axes, keepdims=True)
            decay = decay * wd_ratio
            break
    return w - h["learning_rate"] * (p + decay * w), m, v


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("outcome", ["none", "unit", "layer"])
def test_the_definitions_are_the_formulas(outcome, nesterov, x64, assert_close):
    arrays = leaf((5, 7), ("float64",) * 4, outcome, (1,))
    kwargs = dict(**HYPERS, nesterov=nesterov)

    @jax.jit
    def both(*arrays):
        return adamp.step(*arrays, **kwargs), adam.step(*arrays, **kwargs)

    got, plain = both(*arrays)
    for a, b in zip(got, oracle(*arrays, (1,), nesterov=nesterov), strict=True):
        assert_close(a, b, 1e-13)
    for a, b in zip(plain, oracle(*arrays, nesterov=nesterov), strict=True):
        assert_close(a, b, 1e-13)


DTYPES = {
    "float32": ("float32",) * 4,
    "bfloat16": ("bfloat16", "bfloat16", "bfloat16", "float32"),
}


# Blocks of one tile, so that small leaves take several.
SMALL = Tpu(block=SUBLANES * LANES)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((37, 300), "float32"),
        ((300, 37), "bfloat16"),
        ((2, 16, 130), "bfloat16"),
        ((5,), "float32"),
    ],
    ids=["rows", "columns", "folded", "vector"],
)
def test_ragged_blocks_are_updated_whole(shape, dtype, interpreted, assert_close):
    """Edges that blocks do not divide, of a matrix stored by columns too."""
    arrays = leaf(shape, DTYPES[dtype])
    step = functools.partial(adam.step, **HYPERS, implementation=SMALL)
    got = jax.jit(step)(*arrays)
    for a, b in zip(got, oracle(*arrays), strict=True):
        assert_close(a, b, ROUNDING[a.dtype.name])
    assert np.all(np.asarray(got.v) != np.asarray(arrays[3]))


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=["columns", "rows", "layer"])
def test_adamp_kernel_on_any_shape(axes, interpreted, x64, assert_close):
    kwargs = dict(**HYPERS, reduce=axes, implementation=SMALL)
    step = jax.jit(functools.partial(adamp.step, **kwargs))

    # Each example compiles. In a unit of one number the part across it is rounding.
    @settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(
        rows=st.integers(2, 40),
        columns=st.integers(2, 270),
        outcome=st.sampled_from(["unit", "none", "layer"]),
        seed=st.integers(0, 100),
    )
    def check(rows, columns, outcome, seed):
        arrays = leaf((rows, columns), ("float64",) * 4, outcome, axes, seed)
        for a, b in zip(step(*arrays), oracle(*arrays, axes), strict=True):
            assert_close(a, b, 1e-12)

    check()


def holds_units(arrays, axis, sizes):
    projecting = program(nesterov=False, pulled=True, projects=True)
    named = dict(zip("wgmv", arrays, strict=True))
    return runner.holds(projecting, named, reduce=(axis,), sizes=sizes)


@pytest.mark.parametrize("whole", [True, False])
def test_adamp_kernel_projects(whole, interpreted, x64, assert_close):
    """Also where a unit does not fit, so that a pass before finds its inner product."""
    kernel = SMALL if whole else Tpu(block=SUBLANES * LANES, vmem=0)
    dtypes, shape = ("float64",) * 4, (40, 150)
    arrays = [jax.ShapeDtypeStruct(shape, x) for x in dtypes]
    assert holds_units(arrays, 0, kernel) == whole
    kwargs = dict(**HYPERS, reduce=(0,), implementation=kernel)
    step = jax.jit(functools.partial(adamp.step, **kwargs))
    for outcome in ("none", "unit", "layer"):
        arrays = leaf(shape, dtypes, outcome, (0,))
        for a, b in zip(step(*arrays), oracle(*arrays, (0,)), strict=True):
            assert_close(a, b, 1e-12)


def structs(entry):
    w = entry.struct
    first, second = (jax.ShapeDtypeStruct(w.shape, d) for d in (w.dtype, "float32"))
    return w, w, first, second


def test_lanes_of_hyperparameters_lower_for_tpu(tpu_text):
    """A sweep maps the step over learning rates and parameters at once."""
    lanes = [jax.ShapeDtypeStruct((4, 40, 256), "float32")] * 4

    def step(rate, *arrays):
        hypers = dict(HYPERS, learning_rate=rate)
        return adamp.step(*arrays, **hypers, implementation="tpu")

    rates = jax.ShapeDtypeStruct((4,), "float32")
    assert "@tpu_custom_call" in tpu_text(jax.vmap(step), rates, *lanes)


@pytest.mark.parametrize("entry", shapes.LEAVES, ids=lambda entry: entry.name)
def test_blocks_fit_the_chip(entry):
    block = blocks.cut(runner.folded(entry.shape, ()), Tpu().block)
    arrays = dict(zip("wgmv", structs(entry), strict=True))
    assert blocks.block_bytes(block, arrays, ("w", "m", "v")) <= 16 * 2**20


def test_which_leaves_need_no_third_pass():
    """Only ``mlp_out`` of the 1.3B model has units too long for a block."""
    spread = {
        entry.name
        for entry in shapes.LEAVES
        if entry.unit_axis is not None
        and not holds_units(structs(entry), entry.unit_axis, Tpu())
    }
    assert spread == {"1.3b/mlp_out"}


@given(
    rows=st.integers(1, 10**5),
    columns=st.integers(1, 10**5),
    axis=st.sampled_from([None, 1, 2]),
)
def test_tiles_are_legal_and_bounded(rows, columns, axis):
    elements = 2**17
    height, width = tile(rows, columns, axis, elements)
    assert height == rows or (height % SUBLANES == 0 and height < rows)
    assert width == columns or (width % LANES == 0 and width < columns)
    assert height == rows if axis == 1 else True
    assert width == columns if axis == 2 else True
    if axis is None:
        assert height * width <= elements


@settings(deadline=None, max_examples=25)
@given(
    shape=st.lists(st.integers(1, 4), max_size=4).map(tuple),
    data=st.data(),
)
def test_folding_is_undone_and_keeps_units(shape, data):
    """Any axes in any order of memory: units have the same sums, numbers a place."""
    ndim = len(shape)
    roles = data.draw(st.lists(st.sampled_from("rsk"), min_size=ndim, max_size=ndim))
    reduce = tuple(a for a in range(ndim) if roles[a] == "r")
    stack = tuple(a for a in range(ndim) if roles[a] == "s")
    stored = data.draw(st.permutations(range(ndim)))
    x = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    where = layout(shape, reduce, stack, stored)
    folded = fold(x, where)
    assert np.array_equal(unfold(folded, where, shape), x)
    index = flat_index(where, shape, list(np.indices(where.shape, np.int32)))
    assert np.array_equal(np.broadcast_to(index, where.shape), folded)
    if reduce:
        sums = x.sum(reduce, keepdims=True)
        expected = fold(sums, where)
        assert np.array_equal(folded.sum(where.axis, keepdims=True), expected)


@pytest.mark.parametrize(
    ("shape", "reduce", "stack", "axis"),
    [
        ((2048, 1000), (0,), (), 2),
        ((768, 12, 64), (0,), (), 2),
        ((12, 64, 50), (1,), (0,), 2),
        ((12, 64, 50), (2,), (0,), 1),
        ((7, 7, 3, 64), (0, 1, 2), (), 1),
    ],
    ids=["classifier", "attention", "stacked", "rows", "stem"],
)
def test_leaves_fold_in_the_order_that_a_tpu_stores(shape, reduce, stack, axis):
    """A matrix that is stored by columns has its columns as rows: nothing is copied."""
    order = tpu_order(shape)
    where = runner.folded(shape, reduce, stack)
    assert order != tuple(range(len(shape)))
    assert (where.order, where.axis) == (order, axis)


@pytest.mark.parametrize("shape", [(9999, 1), (1, 9999), (16, 9999, 1), (9999, 3)])
def test_thin_leaves_are_not_padded_to_a_tile_a_number(shape):
    """Whatever is a unit or a layer: 16 rows for one at most, and not 128 columns."""
    roles = itertools.product("rsk", repeat=len(shape))
    for role in roles:
        reduce, stack = (
            tuple(a for a, of in enumerate(role) if of == kind) for kind in "rs"
        )
        if not reduce or math.prod(shape[a] for a in stack) > 16:
            continue
        layers, *matrix = runner.folded(shape, reduce, stack).shape
        assert layers * math.prod(blocks.padded(matrix)) < 17 * math.prod(shape)
