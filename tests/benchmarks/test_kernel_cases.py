"""The kernels' benchmark runs on the data, and counts the bytes, that it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.kernels import cases
from gnomon.kernels.adamp.program import SQUARES, Units, views
from gnomon.kernels.companding import Coded, encode
from gnomon.kernels.engine import whole
from gnomon.kernels.shapes import Activations, Leaf

LEAF = Leaf("rows", (64, 256), "float32", 1)


@pytest.fixture
def numerics(module):
    return module("_kernel_numerics")


def only(found, op):
    (case,) = (case for case in found if case.op == op)
    return case


@pytest.mark.parametrize(("axis", "dtype"), [(0, "float32"), (1, "bfloat16")])
def test_gradients_project_what_their_case_says(numerics, axis, dtype):
    """And still do so after as many calls as a benchmark makes in a row."""
    leaf = Leaf("leaf", (64, 256), dtype, axis)
    found = cases.projecting_cases([leaf], tuple(cases.turns(axis)))
    turned = [case for case in found if case.op == "adamp"]
    step = turned[0].still.jit("xla")  # of which only the data differ
    for case in turned:
        w, g, m, v = numerics.draw(case, seed=0)
        for _ in range(20):
            w, m, v = step(w, g, m, v)
        sums = whole.sums([SQUARES], {"w": w, "g": g}, {}, None, reduce=(axis,))
        limits = jnp.float32(0.1), jnp.float32(1e-8)
        found = views(sums, w.shape, Units((axis,)), *limits)
        by_unit, by_layer = bool(found.by_unit.all()), bool(found.by_layer.all())
        expected = {
            "nothing": (False, False),
            "units": (True, False),
            "layer": (False, True),
        }
        assert (by_unit, by_layer) == expected[case.projects]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("adam", 28 * 16384),
        ("variance", 12 * 16384),
        # Three of float32, two of codes read and written, each with its scales.
        ("adam_8bit", (12 + 4 * (1 + 4 / 256)) * 16384),
        ("adamp_8bit", (12 + 4 * (1 + 4 / 256)) * 16384),
        ("weight_norm", 8 * 16384 + 4 * 64),
    ],
)
def test_bytes_needed_are_those_of_one_reading_and_one_writing(op, expected):
    found = (
        *cases.leaf_cases([LEAF]),
        *cases.projecting_cases([LEAF]),
        *cases.coded_cases([LEAF]),
    )
    assert only(found, op).bytes_needed == expected


def test_norms_need_their_rows_and_vectors():
    found = list(cases.norm_cases([Activations("rows", (32, 128), "bfloat16")]))
    array, vector = 2 * 32 * 128, 4 * 128
    assert only(found, "rms_norm").bytes_needed == 2 * array + vector
    assert only(found, "rms_norm_backward").bytes_needed == 3 * array + 2 * vector


def test_a_gpu_is_given_leaves_of_a_hundred_million_numbers(module):
    found = list(module("kernels").all_cases("gpu"))
    for op in ("adam", "adamp"):
        leaves = [case.inputs[0] for case in found if case.op == op]
        large = {leaf.dtype.name for leaf in leaves if leaf.size >= 10**8}
        assert large == {"float32", "bfloat16"}
    shown = {case.projects for case in found if case.op == "adamp"}
    assert shown == {"nothing", "units", "layer"}


def test_one_code_is_the_most_that_rounding_may_cost(numerics):
    x = jax.random.normal(jax.random.key(0), (4, 256))
    for array, dtype in ((x, "int8"), (x * x, "uint8")):
        coded = jax.jit(encode, static_argnums=1)(array, dtype, 0.99)
        with jax.enable_x64(True):
            exact = jnp.asarray(np.asarray(array, "float64"))
        assert 0.5 < numerics.code_distance(coded, exact) <= numerics.CODES
        codes = np.array(coded.codes)
        codes.flat[codes.argmax()] -= codes.dtype.type(2)
        moved = Coded(jnp.asarray(codes), coded.scales)
        assert numerics.code_distance(moved, exact) > numerics.CODES


def test_a_projection_left_out_is_a_wrong_result(numerics):
    """The comparison is no sharper than its data let it be."""
    leaf = Leaf("rows", (64, 256), "bfloat16", 1)
    names = ("nothing", "layer")
    found = cases.projecting_cases([leaf], names)
    _, case = (c for c in found if c.op == "adamp")
    inputs = numerics.draw(case, seed=0)
    want = numerics.exact(case, inputs)
    got = jax.tree.leaves(case._replace(donated=()).jit("xla")(*inputs))
    row = {"dtype": "bfloat16"} | numerics.compare(case, got, want)
    assert not numerics.wrong(row)
    adam = only(cases.leaf_cases([leaf]), "adam")
    got = jax.tree.leaves(adam._replace(donated=()).jit("xla")(*inputs))
    assert numerics.wrong({"dtype": "bfloat16"} | numerics.compare(case, got, want))


def test_samples_are_means_over_calls_in_a_row(module):
    made = []
    seconds = module("_timing").interleave(
        {"a": lambda: made.append("a"), "b": lambda: made.append("b")},
        repeats=2,
        warmup=1,
        calls=3,
    )
    assert "".join(made) == "aaabbb" + "bbbaaa" + "aaabbb"
    assert [len(times) for times in seconds.values()] == [2, 2]


PROGRAM = """HloModule step

ENTRY %main (w: f32[8,128], g: f32[8,128]) -> f32[8,128] {
  %w = f32[8,128]{1,0} parameter(0)
  %g = f32[8,128]{1,0} parameter(1)
  %near = f32[8,128]{1,0:S(1)} copy(%g)
  ROOT %walk = f32[8,128]{1,0} custom-call(%w, %near), custom_call_target="tpu"ESTIMATE
}
"""


@pytest.mark.parametrize(
    ("estimate", "passes"),
    [
        ("", 3),
        # What the kernel would move if nothing were on the chip already, then twice w.
        (', backend_config={"bytes_accessed":"12288"}', 3),
        (', backend_config={"bytes_accessed":"16384"}', 4),
    ],
)
def test_a_kernel_that_reads_again_counts_as_it_says(module, estimate, passes):
    check = module("check_kernels")
    program = PROGRAM.replace("ESTIMATE", estimate)
    assert check.bytes_moved(program) == passes * 4 * 8 * 128


def test_small_leaves_are_compared_with_adamw_by_its_formula(module):
    small = module("_kernel_leaves")
    params = small.draw(1, 0)
    grads = [small.draw(1, seed) for seed in (1, 2, 3)]
    ways = small.optimizers(kernel=None)
    run = small.Run(ways["in buckets", "xla"], params, grads[0])
    for moved in grads:
        run.step(moved)
    got, want = small.joined(run.params), small.exact(params, grads)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_a_step_that_does_not_fit_tells_by_how_much(module):
    ahead = module("ahead")
    refused = RuntimeError(
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in"
        " memory space hbm. Used 18.55G of 15.75G hbm. Exceeded hbm capacity by 2.80G."
    )
    assert ahead.excess(refused) == "no, by 3.0 GB"
    refused = RuntimeError(
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the"
        " total memory required for HLO temporaries (27.97G) exceeds available HBM"
        " (15.75G). HLO module: jit_g."
    )
    assert ahead.excess(refused) == "no, by 13.1 GB"
    assert ahead.excess(RuntimeError("no such: op\nmore")) == "no such: op"
