"""Goals and proposals follow from the rows of one run, and from nothing else."""

import importlib
import json
from pathlib import Path

import pytest

from gnomon import kernels
from gnomon.kernels import cases

LARGE = 100_663_296


@pytest.fixture
def verdicts(module):
    return module("_kernel_verdicts")


def row(op, by="gpu", us=1000.0, **kwargs):
    """A row of right results, its times within one percent."""
    fixed = dict(shape="rows", dtype="float32", projects="", numbers=LARGE, error=1e-6)
    spread = dict(low_us=us * 0.99, high_us=us * 1.01)
    return dict(op=op, by=by, us=us, share=0.95) | fixed | spread | kwargs


def verdict(verdicts, text, rows, platform="gpu"):
    """The one goal whose text begins so."""
    (goal,) = (goal for goal in verdicts.GOALS if goal.text.startswith(text))
    return verdicts.judge(goal, rows, platform)


def full_run():
    adamp = [
        row("adamp", us=us, projects=projects)
        for projects, us in (("nothing", 1010), ("units", 1020), ("layer", 1030))
    ]
    leaves = dict(shape="300 leaves", leaves=300, numbers=422_400)
    return [
        row("adam"),
        *adamp,
        row("one_by_one", "xla", us=900, **leaves),
        row("buckets", "xla", us=500, **leaves),
        row("buckets", "gpu", us=250, **leaves),
        row("rms_norm"),
        row("rms_norm_backward"),
    ]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_without_a_gpu_no_goal_has_a_figure(verdicts, platform):
    for goal in verdicts.GOALS:
        found = verdicts.judge(goal, full_run(), platform)
        assert found["verdict"] == "not measured"
        assert found["reason"] == "needs a GPU"
        assert "figures" not in found


def test_a_run_that_reaches_every_goal(verdicts):
    found = [verdicts.judge(goal, full_run(), "gpu") for goal in verdicts.GOALS]
    assert [record["verdict"] for record in found] == ["reached"] * 6


def test_the_worst_row_decides(verdicts):
    rows = full_run()
    rows[3] |= dict(us=1060.0, share=0.89)
    for text, figure in (("AdamP, share", 0.89), ("AdamP, time", 1.06)):
        found = verdict(verdicts, text, rows)
        assert found["verdict"] == "missed"
        name = "rows, float32, projects layer, by gpu"
        assert found["figures"][name] == pytest.approx(figure)
        assert len(found["figures"]) == 3


def test_small_leaves_say_nothing_of_large_ones(verdicts):
    found = verdict(verdicts, "AdamW, share", [row("adam", numbers=10**8 - 1)])
    assert found["verdict"] == "not measured"
    assert "100,000,000" in found["reason"]


def test_times_are_compared_with_adam_on_the_same_leaf_alone(verdicts):
    rows = [row("adam", dtype="bfloat16"), row("adamp")]
    assert verdict(verdicts, "AdamP, time", rows)["verdict"] == "not measured"


def test_buckets_may_reach_their_goal_by_xla(verdicts):
    rows = full_run()
    leaves = dict(shape="300 leaves", leaves=300, numbers=422_400)
    rows[5] = row("buckets", "xla", us=299, **leaves)
    del rows[6]["us"]
    rows[6] |= dict(why="the gpu kernel does not support this call")
    found = verdict(verdicts, "300 leaves", rows)
    assert found["verdict"] == "reached"
    assert found["figures"] == {"300 leaves, float32, by xla": pytest.approx(900 / 299)}
    rows[5]["us"] = 301
    assert verdict(verdicts, "300 leaves", rows)["verdict"] == "missed"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (dict(error=1e-3), "its results are wrong"),
        (dict(error=float("nan")), "its results are wrong"),
        (dict(us=None, why="GPU kernels need jax >= 0.11"), "GPU kernels need"),
    ],
)
def test_what_is_wrong_or_did_not_run_reaches_nothing(verdicts, broken, reason):
    broken = {k: v for k, v in (row("rms_norm") | broken).items() if v is not None}
    rows = [row("rms_norm", shape="other"), broken]
    found = verdict(verdicts, "RMSNorm forward", rows)
    assert found["verdict"] == "not measured"
    assert reason in found["reason"]


def pair(op, kernel, xla=1000.0, **kwargs):
    return [row(op, "xla", xla, **kwargs), row(op, "gpu", kernel, **kwargs)]


def test_a_kernel_pays_where_it_wins_by_more_than_the_spread(verdicts):
    rows = pair("adam", 970) + pair("fadam", 985) + pair("variance", 1100)
    assert verdicts.faster(rows, "gpu") == ["adam"]
    assert verdicts.faster(rows, "tpu") == verdicts.faster(rows, "cpu") == []


def test_one_slow_shape_or_direction_denies_a_kernel(verdicts):
    norm = pair("rms_norm", 500) + pair("rms_norm_backward", 1500)
    eight_bit = pair("adam_8bit", 500) + pair("adamp_8bit", 1500)
    adam = pair("adam", 500) + pair("adam", 1500, shape="columns")
    assert verdicts.faster(norm + eight_bit + adam, "gpu") == []


def test_a_wrong_or_broken_kernel_is_denied_and_a_refusal_is_no_measurement(verdicts):
    wrong = pair("adam", 500) + pair("adam", 500, shape="columns", error=1.0)
    failed = pair("fadam", 500) + pair("fadam", 500, shape="columns")
    failed[-1] = dict(op="fadam", by="gpu", shape="columns", dtype="float32") | dict(
        projects="", why="failed: out of memory", refused=False
    )
    refused = pair("rms_norm", 500) + pair("rms_norm", 500, shape="odd")
    refused[-1] = dict(op="rms_norm", by="gpu", shape="odd", dtype="float32") | dict(
        projects="", why="does not support this call", refused=True
    )
    assert verdicts.faster(wrong + failed + refused, "gpu") == ["rms_norm"]


def test_every_operation_speaks_for_one_that_can_be_chosen(verdicts, module):
    assert set(verdicts.CHOICES) == {case.op for case in cases.cases()}
    for name in set(verdicts.CHOICES.values()):
        assert importlib.import_module(f"gnomon.kernels.{name}").explain


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def unmeasured(verdicts, table, records):
    """The entries of a table of defaults that no record of a benchmark speaks for."""
    measured = {
        (op, platform)
        for record in records
        for platform in ("tpu", "gpu")
        if record["device"].startswith(platform)
        for op in verdicts.faster(record["rows"], platform)
    }
    return {(op, on) for op, platforms in table.items() for on in platforms} - measured


def test_no_default_without_a_measurement(verdicts):
    """A kernel that runs unasked is in the results, on its platform, and faster."""
    records = [json.loads(path.read_text()) for path in RESULTS.glob("kernels*.json")]
    assert any(record["rows"] for record in records)
    assert not unmeasured(verdicts, kernels.FASTER_THAN_XLA, records)
    # The check fails on a table that says more than the results.
    table = {"adam": {"gpu", "tpu"}, "fadam": {"gpu"}}
    run = dict(device="gpu: H100", rows=pair("adam", 500) + pair("fadam", 1500))
    on_cpu = run | dict(device="cpu: cpu")
    everything = {("adam", "gpu"), ("adam", "tpu"), ("fadam", "gpu")}
    assert unmeasured(verdicts, table, [on_cpu]) == everything
    assert unmeasured(verdicts, table, [run]) == everything - {("adam", "gpu")}
