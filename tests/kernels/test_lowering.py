"""Every step of the list of cases, lowered for a TPU and for an H100: in place."""

import functools

import jax
import pytest

from gnomon.kernels.cases import coded_cases, leaf_cases, projecting_cases
from gnomon.kernels.companding import BLOCK, folded
from gnomon.kernels.engine.choice import GPU_NEEDS_JAX

CASES = [*leaf_cases(), *projecting_cases(), *coded_cases()]
STEPS = [case for case in CASES if case.donated]
# Threads of a block, and the longest row that their registers hold.
THREADS, MAX_ROW = 128, 2**11


def name(case):
    return f"{case.op}-{case.shape}"


def lowered(case, by, lower, inputs):
    """The program, in which bfloat16 parameters are rounded stochastically."""
    step = functools.partial(case.function, implementation=by, key=jax.random.key(0))
    return lower(step, *inputs)


@pytest.mark.parametrize("case", STEPS, ids=name)
def test_steps_lower_for_tpu_in_place(case, tpu_text):
    """One kernel, its outputs over what is donated, and all sums of a layer in it.

    But for layers that the chip does not hold, whose sums XLA makes if they are few.
    """
    w, *others = case.inputs
    if case.op in ("adam", "adamp", "fadam"):
        others[1] = w  # a first moment as narrow as the parameter
    text = lowered(case, "tpu", tpu_text, (w, *others))
    assert text.count("@tpu_custom_call") == 1
    assert text.count("#stablehlo.output_operand_alias") == len(case.donated)
    large = 2 * w.size * w.dtype.itemsize > 40 * 2**20
    if case.op in ("fadam", "fixed_norm", "fixed_norm_units", "variance"):
        by_xla = large and case.op == "fixed_norm"
        assert ("stablehlo.reduce" in text) == by_xla


if jax.__version_info__[:2] >= GPU_NEEDS_JAX:

    def sums(case):
        """How many kernels add up before the one in place."""
        w = case.inputs[0]
        if case.op == "adamp":
            return 0 if w.shape[1] % THREADS else 2
        if case.op in ("fadam", "fixed_norm", "variance"):
            return 0 if w.size % THREADS or w.size <= MAX_ROW else 2
        return 0

    # Of sums over units more is said in the tests of sweeps.
    @pytest.mark.parametrize(
        "case", [case for case in STEPS if case.op != "fixed_norm_units"], ids=name
    )
    def test_steps_lower_for_cuda_in_place(case, cuda_text):
        """Kernels of sums and one over what is donated, or a refusal."""
        shape = case.inputs[0].shape
        if "8bit" in case.op and folded(shape)[1] % BLOCK == 1:
            with pytest.raises(ValueError, match="the last block is a single number"):
                lowered(case, "gpu", cuda_text, case.inputs)
            return
        text = lowered(case, "gpu", cuda_text, case.inputs)
        assert text.count("custom_call @mosaic_gpu") == 1 + sums(case)
        aliases = text.count("#stablehlo.output_operand_alias<")
        assert aliases == len(case.donated)
