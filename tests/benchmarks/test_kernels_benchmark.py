"""The kernels' benchmark runs, judges its own results, and says where."""

import json

import jax
import pytest
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels import cases
from gnomon.kernels.shapes import Leaf

OPTIONS = dict(repeats=2, calls=2, seed=0)


def test_on_a_cpu_it_times_the_definitions_and_claims_nothing(script, tmp_path):
    out = tmp_path / "kernels.json"
    printed = script(
        "kernels",
        *("--ops", "rms_norm", "buckets", "--blocks=1", "--repeats=2"),
        f"--output={out}",
    )
    assert "CPU: small buffers, XLA alone." in printed
    record = json.loads(out.read_text())
    assert record["small"]
    assert record["faster_than_xla"] == []
    assert {goal["verdict"] for goal in record["goals"]} == {"not measured"}
    assert printed.count("not measured: needs a GPU") == len(record["goals"]) == 6

    rows = record["rows"]
    half, single, alone, joined, optax = rows
    assert [row["dtype"] for row in (half, single)] == ["bfloat16", "float32"]
    ways = [(row["op"], row["by"]) for row in (alone, joined, optax)]
    assert ways == [("one_by_one", "xla"), ("buckets", "xla"), ("one_by_one", "optax")]
    assert joined["to_xla"] == pytest.approx(joined["us"] / alone["us"])
    assert joined["to_optax"] == pytest.approx(joined["us"] / optax["us"])
    for row in rows:
        assert row["low_us"] <= row["us"] <= row["high_us"]
        speed = row["MB_needed"] / row["us"] * 1e3
        assert row["share"] == pytest.approx(speed / row["copy_GB_s"])


@pytest.fixture
def standard():
    """Promotion as in a process of the benchmark's own: optax relies on it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_a_kernel_is_timed_beside_xla(module, standard):
    """Here by the interpreter; what matters is which rows come of it."""
    leaf = Leaf("rows", (8, 256), "float32", 1)
    case = next(cases.leaf_cases([leaf]))
    with pltpu.force_tpu_interpret_mode():
        xla, kernel = module("_kernel_rows").measure(case, "tpu", **OPTIONS)
    assert (case.op, xla["by"], kernel["by"]) == ("adam", "xla", "tpu")
    assert kernel["to_xla"] == pytest.approx(kernel["us"] / xla["us"])
    assert kernel["to_optax"] > 0
    assert kernel["error"] < 1e-5


def test_a_kernel_that_breaks_is_a_row_and_so_is_one_that_refuses(module):
    """On a CPU no kernel runs that is not interpreted."""
    table = module("_kernel_rows")
    found = cases.leaf_cases([Leaf("rows", (4, 256), "float32", 1)])
    (case,) = (case for case in found if case.op == "variance")
    xla, broken = table.measure(case, "tpu", **OPTIONS)
    assert xla["us"] > 0
    assert "us" not in broken
    assert broken["why"].startswith("failed: ")
    assert not broken["refused"]

    (case,) = cases.coded_cases([Leaf("rows", (4, 256), "float16", 1)])
    with pytest.raises(ValueError, match="float16") as refusal:
        case.jit("tpu").lower(*case.inputs)
    refused = table.trouble(refusal.value)
    assert refused["refused"]
    assert "float16" in refused["why"]
