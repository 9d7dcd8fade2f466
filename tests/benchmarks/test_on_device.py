"""One command for a device: what fails, dies or hangs costs its own item alone."""

import json
import sys

import pytest

QUICK = {"quick": True}
# A section's process whose items fail, die and hang.
WORKER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from _device_stages import Section, work
def run(item, settings):
    if item == "fails":
        raise ValueError("no\\nmore")
    if item == "lost":
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")
    if item == "dies":
        os._exit(7)
    if item == "hangs":
        time.sleep(60)
    return [dict(item=item, process=os.getpid())]
items = ["first", "fails", "second", "dies", "third", "lost", "hangs", "fourth"]
work(Section("s", 1, 1, lambda settings: items, run), {{}}, Path(sys.argv[1]))
"""


@pytest.fixture
def stages(module):
    return module("_device_stages")


def test_an_item_that_fails_dies_or_hangs_is_told_and_the_next_one_runs(
    stages, tmp_path
):
    script, rows, log = (tmp_path / name for name in ("w.py", "rows", "log"))
    benchmarks = str(stages.__file__).rsplit("/", 1)[0]
    script.write_text(WORKER.format(benchmarks=benchmarks))
    command = [sys.executable, str(script), str(rows)]
    came = stages.drive(command, rows, seconds=30, stall=1.0, log=log)
    assert [row["item"] for row in came.rows] == ["first", "second", "third", "fourth"]
    assert came.failed == {
        "fails": "ValueError: no",
        "dies": "the process died: exit status 7",
        "lost": "RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS",
        "hangs": "it said nothing for 1 s",
    }
    assert came.left == []
    # What may have lost the device is not gone on with in the same process.
    assert len({row["process"] for row in came.rows}) == 3


def test_a_cut_leaves_what_was_measured(stages, tmp_path):
    script, rows, log = (tmp_path / name for name in ("w.py", "rows", "log"))
    benchmarks = str(stages.__file__).rsplit("/", 1)[0]
    text = WORKER.format(benchmarks=benchmarks)
    script.write_text(text.replace('"fails", ', '"hangs", '))
    command = [sys.executable, str(script), str(rows)]
    came = stages.drive(command, rows, seconds=1.0, stall=30, log=log)
    assert [row["item"] for row in came.rows] == ["first"]
    assert came.failed == {"hangs": "out of time"}
    assert "fourth" in came.left
    script.write_text("raise SystemExit('no such package')")
    came = stages.drive(command, tmp_path / "none", seconds=30, stall=30, log=log)
    assert came.failed == {"start": "no such package"}


def test_sections_measure(module):
    steps, kernels = module("_device_steps"), module("_device_kernels")
    (row,) = steps.step("step adamp", QUICK)
    assert row["held_GB"] == pytest.approx(row["live_GB"], rel=0.05)
    assert row["planned_GB"] > row["held_GB"]
    assert row["tokens_s"] == pytest.approx(4 * 32 / row["step_ms"] * 1e3)
    (row,) = kernels.check(kernels.check_items(QUICK)[0], QUICK)
    assert row["right"]
    assert row["by"] == "tpu"
    for section in (steps.step_items(QUICK), kernels.time_items(QUICK)):
        assert len(set(section)) == len(section)


def test_what_beats_xla_is_proposed_unless_it_is_wrong(module, tmp_path):
    on_device = module("on_device")

    def pair(op, kernel_us):
        for by, us in (("xla", 100.0), ("gpu", kernel_us)):
            yield {
                **dict(op=op, shape="rows", dtype="float32", projects="", by=by),
                **dict(numbers=10, us=us, low_us=us - 1, high_us=us + 1),
                **dict(share=0.5, error=0.0),
            }

    rows = [*pair("adam", 50.0), *pair("fadam", 50.0), *pair("variance", 100.0)]
    wrong = {**rows[3], "right": False}
    sections = {
        "device": {"rows": [{"platform": "gpu", "kind": "NVIDIA H200"}], "failed": {}},
        "kernels": {"rows": rows, "failed": {}},
        "correct": {"rows": [wrong], "failed": {"rms_norm tokens bfloat16": "died"}},
    }
    record = {"sections": sections, "settings": QUICK}
    said = on_device.propose(record)
    assert 'FASTER_THAN_XLA = {"adam": frozenset({"gpu"})}' in said
    assert "to be deleted: variance" in said
    assert "wrong, or did not run: fadam, rms_norm" in said
    assert on_device.named_after(record).name == "nvidia_h200-quick.json"
    path = tmp_path / "r.json"
    on_device.write(path, record)
    assert json.loads(path.read_text()) == record
    assert "fadam  rows" in on_device.tables(record)
