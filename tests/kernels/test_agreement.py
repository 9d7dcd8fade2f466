"""Every operation by every kernel, on odd shapes and numbers: what XLA gives, NaN too.

What `explain` says is what runs, and where it says XLA, a call that may fall back does.
"""

import functools
import itertools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.kernels import (
    Gpu,
    adam,
    adam_8bit,
    adamp,
    fadam,
    fixed_norm,
    layer_norm,
    rms_norm,
    variance,
    weight_norm,
)
from gnomon.kernels.companding import decode, encode
from gnomon.kernels.engine.choice import GPU_NEEDS_JAX

HYPERS = dict(learning_rate=0.1, count=3, weight_decay=0.1)
BLOCK = 128

# Numbers that a step must bear; squares of the large ones overflow.
SPECIAL = (0.0, 1e-38, 1e-25, 1e-15, 1e15, 1e25, -3e38, np.inf, -np.inf, np.nan)

# Arrays that are each other's opposite but for this, and the mean of rows that are
# nearly constant: their sums, differences and deviations cancel.
OPPOSITE = (1.0, 0.9999, 0.99)
MEAN = 1e4

# Optimized code multiplies and adds at once. A product too large for a float32 is then
# none where an infinity is subtracted from it: it gives an infinity, and not the NaN of
# two infinities. Which of the two it is depends on what was fused.
FUSED = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "0"


class Case(NamedTuple):
    """One call, on arrays of a shape and numbers with a sign or, if not, without."""

    op: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    reduce: tuple[int, ...] = ()
    stack: tuple[int, ...] = ()
    lanes: bool = False  # whether jax.vmap runs all cases at once
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        shape = "x".join(map(str, self.shape)) or "number"
        axes = "".join(map(str, self.reduce)) + "s" * len(self.stack)
        return "-".join(filter(None, [self.op, shape, axes, self.dtype[:1]]))


def per_unit(case):
    inside = case.reduce or tuple(
        a for a in range(len(case.shape)) if a not in case.stack
    )
    return tuple(1 if a in inside else n for a, n in enumerate(case.shape))


def backward(function, *inputs):
    """The value, and the cotangents of all inputs but the last, its cotangent."""
    value, pull_back = jax.vjp(function, *inputs[:-1])
    return value, pull_back(inputs[-1].astype(value.dtype))


def coded(step, w, g, m, v, **kwargs):
    moments = encode(m, "int8", block=BLOCK), encode(v, "uint8", block=BLOCK)
    moved = step(w, g, *moments, **kwargs, block=BLOCK, stochastic=False)
    return moved.w, *(decode(x, block=BLOCK) for x in (moved.m, moved.v))


def call(case, implementation):
    """The function of the case's arrays, and what to ask `explain` by."""
    how = dict(implementation=implementation, fall_back=True, **dict(case.options))
    units = dict(reduce=case.reduce, stack=case.stack)
    stack = dict(stack=case.stack)

    def norm(function):
        return lambda *arrays: backward(functools.partial(function, **how), *arrays)

    def by_length(v, g, cotangent):
        function = functools.partial(weight_norm.weight_norm, axis=case.reduce, **how)
        return backward(function, v, g, cotangent)

    return {
        "adam": functools.partial(adam.step, **HYPERS, **how),
        "adamp": functools.partial(adamp.step, **HYPERS, **units, **how),
        "fadam": functools.partial(fadam.step, **HYPERS, **stack, **how),
        "fixed_norm": functools.partial(
            fixed_norm.step, **units | {"reduce": case.reduce or None}, **how
        ),
        "variance": lambda w, u: variance.step(w, u, target=0.5, **stack, **how),
        "adam_8bit": functools.partial(coded, adam_8bit.step, **HYPERS, **how),
        "adamp_8bit": functools.partial(coded, adamp.step, **HYPERS, **units, **how),
        "rms_norm": norm(rms_norm.rms_norm),
        "layer_norm": norm(layer_norm.layer_norm),
        "weight_norm": by_length,
    }[case.op]


def explained(case, implementation):
    """What `explain` says of the case."""
    how = dict(implementation=implementation, fall_back=True)
    struct = jax.ShapeDtypeStruct(case.shape, case.dtype)
    if case.op in ("rms_norm", "layer_norm"):
        module = rms_norm if case.op == "rms_norm" else layer_norm
        return module.explain(struct, **how).implementation
    if case.op == "weight_norm":
        return weight_norm.explain(struct, case.reduce, **how).implementation
    module = {
        "adam": adam,
        "adamp": adamp,
        "fadam": fadam,
        "fixed_norm": fixed_norm,
        "variance": variance,
        "adam_8bit": adam_8bit,
        "adamp_8bit": adam_8bit,
    }[case.op]
    if "8bit" in case.op:
        how |= dict(block=BLOCK)
    return module.explain(case.dtype, shape=case.shape, **how).implementation


def forms(case):
    """Shape, dtype and whether negative numbers are allowed, of each array."""
    full, unit, vector = case.shape, per_unit(case), case.shape[-1:]
    like, wide = (full, case.dtype, True), (full, "float32", True)
    return {
        "fixed_norm": [like, wide, (unit, "float32", False)],
        "variance": [like, wide],
        "rms_norm": [like, (vector, "float32", True), wide],
        "layer_norm": [like, *[(vector, "float32", True)] * 2, wide],
        "weight_norm": [like, (unit, "float32", True), wide],
    }.get(case.op, [like, like, wide, (full, "float32", False)])


def normals(case, rng):
    for shape, _, signed in forms(case):
        x = rng.normal(size=shape)
        yield np.asarray(x if signed else np.abs(x))


def cast(case, arrays):
    pairs = zip(arrays, forms(case), strict=True)
    return [np.asarray(jnp.asarray(x, "float32").astype(of)) for x, (_, of, _) in pairs]


def draws(case, count):
    """So many sets of arrays: one plain, others with special numbers in some array."""
    rng = np.random.default_rng(sum(map(ord, case.name)))
    choices = list(itertools.product(range(len(forms(case))), SPECIAL, (True, False)))
    rng.shuffle(choices)
    for which, special, everywhere in [(0, 1.0, False), *choices][:count]:
        arrays, where = (
            [*normals(case, rng)],
            "everywhere" if everywhere else "somewhere",
        )
        x, (shape, _, signed) = arrays[int(which)], forms(case)[int(which)]
        at = tuple(rng.integers(0, n) for n in shape) if x.size else ...
        x[... if everywhere else at] = special if signed else abs(special)
        yield f"{special} {where} in array {which}", cast(case, arrays)


def cancelling(case):
    """Sets of which arrays nearly cancel each other, or their mean; tiny ones too."""
    rng = np.random.default_rng(sum(map(ord, case.name)) + 1)
    kinds, options = forms(case), dict(case.options)
    for i, j in itertools.permutations(range(len(kinds)), 2):
        if kinds[i][0] != kinds[j][0] or not kinds[j][2]:
            continue
        for share, size in [*itertools.product(OPPOSITE, (1.0,)), (0.99, 1e-18)]:
            arrays = [*normals(case, rng)]
            arrays[i] *= size
            arrays[j] = -share * arrays[i]
            if case.op == "fixed_norm":
                # What is added is to be the opposite.
                arrays[j] = arrays[j] / options.get("rate", 1.0)
                units = case.reduce or tuple(range(len(case.stack), len(case.shape)))
                length = np.sqrt(np.sum(arrays[i] ** 2, axis=units, keepdims=True))
                arrays[2] = share * length / options.get("angle", 1.0)
            yield f"{j} = -{share} {i} of size {size}", cast(case, arrays)
    for i, (*_, signed) in enumerate(kinds):
        arrays = [*normals(case, rng)]
        if signed:
            arrays[i] = MEAN + arrays[i]
            yield f"nearly constant {i}", cast(case, arrays)


def assert_same(got, want, coded, exact=None):
    """The same NaN and infinities, and the same numbers but for rounding.

    Sums in another order differ by a share of the largest numbers, each kind its own.
    Where numbers cancel, the definition's own rounding, found in float64, is allowed.
    """
    exact = jax.tree.leaves(want if exact is None else exact)
    leaves = (jax.tree.leaves(x) for x in (got, want, exact))
    for a, b, c in zip(*leaves, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        rounding = 2**-7 if a.dtype == jnp.bfloat16 else 1e-4
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        finite = np.isfinite(b)
        if FUSED:
            assert not np.isfinite(a[~finite]).any()
        else:
            np.testing.assert_array_equal(a[~finite], b[~finite])
        assert np.isfinite(a[finite]).all()
        # Codes next to each other are as far apart as this.
        rounding = 0.2 if coded and a.dtype == np.float64 else rounding
        scale = np.abs(b[finite]).max(initial=0.0) * 1e-5
        off = np.abs(b[finite] - np.asarray(c, np.float64)[finite])
        scale += 4 * off[np.isfinite(off)].max(initial=0.0)
        np.testing.assert_allclose(a[finite], b[finite], rtol=rounding, atol=scale)


def check(case, implementation, count, calls):
    """The kernel, or XLA where `explain` says so, against XLA."""
    kernel = jax.jit(call(case, implementation))
    definition = jax.jit(call(case, "xla"))
    related = [] if "8bit" in case.op else [*cancelling(case)]
    names, sets = zip(*draws(case, count), *related, strict=True)
    jax.eval_shape(definition, *sets[0])
    assert not calls
    jax.eval_shape(kernel, *sets[0])
    assert bool(calls) == (explained(case, implementation) != "xla")
    if case.lanes:
        stacked = [jnp.stack(arrays) for arrays in zip(*sets, strict=True)]
        got, want = (jax.jit(jax.vmap(f))(*stacked) for f in (kernel, definition))
        results = [
            [jax.tree.map(lambda x, i=i: x[i], tree) for tree in (got, want)]
            for i in range(len(sets))
        ]
    else:
        results = [(kernel(*arrays), definition(*arrays)) for arrays in sets]
    with jax.enable_x64(True):
        exact = [
            definition(*(np.asarray(x, np.float64) for x in arrays))
            for _, arrays in related
        ]
    exact = [None] * (len(names) - len(related)) + exact
    for name, (got, want), precise in zip(names, results, exact, strict=True):
        try:
            assert_same(got, want, "8bit" in case.op, precise)
        except AssertionError as error:
            raise AssertionError(f"{case.name} with {name}: {error}") from error


ANGLE = (("angle", 0.3),)
TANGENT = (("angle", 0.3), ("tangent", True))
ALONG = (("rate", 2.0**14), ("tangent", True))
HALF = "bfloat16"
CASES = (
    Case("adam", ()),
    Case("adam", (3, 43), HALF, lanes=True),
    Case("adam", (0, 4)),
    Case("adamp", (1, 9), reduce=(1,)),
    Case("adamp", (9, 1), reduce=(0,)),
    Case("adamp", (5, 1), reduce=(1,), lanes=True),
    Case("adamp", (3, 43), HALF, reduce=(1,)),
    Case("adamp", (2, 5, 8), reduce=(1,), stack=(0,)),
    Case("adamp", (1,), reduce=(0,)),
    Case("fadam", (3, 43)),
    Case("fadam", (1,)),
    Case("fadam", (3, 2, 8), HALF, stack=(0,)),
    Case("fadam", (6,), stack=(0,), lanes=True),
    Case("fixed_norm", (3, 43), reduce=(1,), options=ANGLE),
    Case("fixed_norm", (4, 1), reduce=(1,), options=TANGENT),
    Case("fixed_norm", (2, 24), reduce=(0,), options=(("rate", 0.5),)),
    Case("fixed_norm", (9, 1), HALF, options=TANGENT),
    Case("fixed_norm", (5, 9)),
    Case("fixed_norm", (2, 24), reduce=(1,), options=(("rate", 2.0**27),)),
    Case("fixed_norm", (3, 40), reduce=(1,), options=ALONG),
    Case("fixed_norm", (3, 7), stack=(0,), lanes=True, options=ANGLE),
    Case("variance", (3, 43)),
    Case("variance", (), HALF),
    Case("variance", (5, 3), stack=(0,), lanes=True),
    Case("adam_8bit", (3, 150)),
    Case("adam_8bit", (), HALF),
    Case("adamp_8bit", (20, 9), reduce=(1,)),
    Case("adamp_8bit", (130, 1), HALF, reduce=(0,), lanes=True),
    Case("rms_norm", (3, 43)),
    Case("rms_norm", (17, 5), HALF, lanes=True),
    Case("layer_norm", (3, 43), HALF),
    Case("layer_norm", (1, 2, 4)),
    Case("weight_norm", (1, 128), reduce=(1,)),
    Case("weight_norm", (43, 3), HALF, reduce=(0,)),
    Case("weight_norm", (2, 5, 8), reduce=(1,), lanes=True),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tpu_kernels_agree_with_xla(case, interpreted):
    check(case, "tpu", 24, interpreted)


GPU_CASES = (
    Case("adam", (3, 43), HALF),
    Case("adam", ()),
    Case("adamp", (1, 256), reduce=(1,)),
    Case("adamp", (9, 1), reduce=(0,)),
    Case("adamp", (5, 1), reduce=(1,)),
    Case("adamp", (2, 64, 8), reduce=(1,), stack=(0,)),
    Case("adamp", (9, 128), HALF, reduce=(0,)),
    Case("fadam", (3, 43)),
    Case("fadam", (2, 128), HALF, stack=(0,)),
    Case("fixed_norm", (3, 128), reduce=(1,), options=TANGENT),
    Case("fixed_norm", (64, 8), reduce=(0,), options=ANGLE),
    Case("fixed_norm", (9, 128), reduce=(0,), options=(("rate", 0.5),)),
    Case("fixed_norm", (9, 1), options=ANGLE),
    Case("fixed_norm", (5, 9)),
    Case("fixed_norm", (5, 256), options=ANGLE),
    Case("fixed_norm", (2, 128), reduce=(1,), options=ALONG),
    Case("variance", (3, 43)),
    Case("variance", (1, 128), HALF),
    Case("adam_8bit", (3, 150)),
    Case("adam_8bit", (1,), HALF),
    Case("adamp_8bit", (20, 9), HALF, reduce=(1,)),
    Case("rms_norm", (3, 128)),
    Case("rms_norm", (3, 43), HALF),
    Case("layer_norm", (3, 128), HALF),
    Case("weight_norm", (1, 128), reduce=(1,)),
    Case("weight_norm", (128, 1), reduce=(0,)),
    Case("weight_norm", (64, 8), HALF, reduce=(0,)),
    Case("weight_norm", (64, 7), reduce=(0,)),
)

if jax.__version_info__[:2] >= GPU_NEEDS_JAX:

    @pytest.mark.parametrize("case", GPU_CASES, ids=lambda case: case.name)
    def test_gpu_kernels_agree_with_xla(case, simulated):
        check(case, Gpu(blocks=2, fewest=4), 12, simulated)
