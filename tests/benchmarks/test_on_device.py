"""One command for a device: what fails, dies or hangs costs its own item alone."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

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


def test_an_error_ends_the_process_where_the_device_answers_no_more(stages, tmp_path):
    script, rows, log = (tmp_path / name for name in ("w.py", "rows", "log"))
    script.write_text(
        """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from _device_stages import Section, work
broken = []
def alive():
    if broken:
        raise RuntimeError("no answer")
def run(item, settings):
    if item == "wedges":
        broken.append(item)
    if item in ("wedges", "compiler"):
        raise RuntimeError("INTERNAL: no ptxas")
    return [dict(item=item, process=os.getpid(), number=Path("seven"))]
items = ["first", "compiler", "second", "wedges", "third"]
section = Section("s", 1, 1, lambda settings: items, run, alive)
work(section, {}, Path(sys.argv[1]))
"""
    )
    benchmarks = str(stages.__file__).rsplit("/", 1)[0]
    command = [sys.executable, str(script), str(rows), benchmarks]
    came = stages.drive(command, rows, seconds=30, stall=20, log=log)
    assert [row["item"] for row in came.rows] == ["first", "second", "third"]
    first, second, third = (row["process"] for row in came.rows)
    assert first == second != third
    assert set(came.failed) == {"compiler", "wedges"}
    # What was printed beside the line that tells why.
    assert "no ptxas" in came.log
    assert "no answer" in came.log
    assert came.rows[0]["number"] == "seven"
    late = stages.drive(command, tmp_path / "late", seconds=0, stall=20, log=log)
    assert late.failed == {"start": "out of time"}


def test_a_section_does_not_outlive_the_run(stages, tmp_path):
    script, rows, log = (tmp_path / name for name in ("w.py", "rows", "log"))
    benchmarks = str(stages.__file__).rsplit("/", 1)[0]
    text = WORKER.format(benchmarks=benchmarks).replace('"first", ', '"pid", "hangs", ')
    script.write_text(text)
    run = f"""
import sys
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from _device_stages import drive
command = [sys.executable, {str(script)!r}, {str(rows)!r}]
drive(command, Path({str(rows)!r}), seconds=60, stall=60, log=Path({str(log)!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", run])

    def until(holds):
        end = time.monotonic() + 30
        while not (found := holds()):
            assert time.monotonic() < end
            time.sleep(0.05)
        return found

    until(lambda: '"hangs"' in "".join(map(json.dumps, list(stages.told(rows))[1:])))
    child = stages.outcome(rows).rows[0]["process"]
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    def gone():
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        # Dead, and not yet waited for by its new parent.
        with open(f"/proc/{child}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"

    until(gone)


def test_a_cpu_that_jax_fell_back_to_is_told_at_once(module, tmp_path, monkeypatch):
    on_device, stages = module("on_device"), module("_device_stages")
    asked = []

    def drive(command, rows, **how):
        asked.append(command[2])
        return stages.Came([{"platform": "cpu", "kind": "cpu"}], {}, [], 1.0)

    monkeypatch.setattr(on_device, "drive", drive)
    monkeypatch.setenv("OUT", str(tmp_path))
    flags = argparse.Namespace(output=None, minutes=1.0, sections=["device", "step"])
    record = on_device.measure({"quick": False}, flags)
    assert asked == ["--work=device"]
    assert "a CPU alone" in record["stopped"]
    assert json.loads((tmp_path / "cpu.json").read_text()) == record
    flags.output = tmp_path / "folder"
    record = on_device.measure({"quick": True}, flags)
    assert asked[1:] == ["--work=device", "--work=step"]
    assert (flags.output / "cpu-quick.json").exists()
    none = stages.Came([], {"start": "RuntimeError: no cuDNN"}, [], 1.0, "no cuDNN")
    monkeypatch.setattr(on_device, "drive", lambda *given, **how: none)
    record = on_device.measure({"quick": False}, flags)
    assert list(record["sections"]) == ["device"]
    assert (flags.output / "unknown_device.json").exists()


def test_a_step_runs_without_cudnn(module, monkeypatch):
    steps = module("_device_steps")

    def whole(config, settings):
        if config["model"]["attention"] is None:
            raise RuntimeError("FAILED_PRECONDITION: DNN library initialization failed")
        return {"ran": config["model"]["attention"]}

    monkeypatch.setattr(steps, "_whole", whole)
    (row,) = steps.step("step adamw", QUICK)
    assert row["ran"] == "xla"
    assert "DNN library" in row["without_cudnn"]
    (row,) = steps.step("step adamw, attention by xla", QUICK)
    assert "without_cudnn" not in row


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
    rows += pair("weight_norm", 50.0)
    for name in ("us", "low_us", "high_us", "share", "error"):
        del rows[-1][name]
    rows[-1] |= dict(why="failed: INTERNAL: no ptxas", refused=False)
    wrong = {**rows[3], "right": False}
    sections = {
        "device": {"rows": [{"platform": "gpu", "kind": "NVIDIA H200"}], "failed": {}},
        "kernels": {
            "rows": rows,
            "failed": {
                "adam rows float32 beside torch": "died",
                "adam r": "out of time",
            },
        },
        "correct": {"rows": [wrong], "failed": {"rms_norm tokens bfloat16": "died"}},
    }
    record = {"sections": sections, "settings": QUICK}
    said = on_device.propose(record)
    assert 'FASTER_THAN_XLA = {"adam": frozenset({"gpu"})}' in said
    assert "to be deleted: variance" in said
    unknown = {"sections": sections | {"device": {"rows": [], "failed": {}}}}
    assert on_device.propose(unknown) == said
    assert "wrong, or did not run: fadam, rms_norm, weight_norm" in said
    assert on_device.named_after(record) == "nvidia_h200-quick.json"
    path = tmp_path / "r.json"
    on_device.write(path, record)
    assert json.loads(path.read_text()) == record
    assert "fadam  rows" in on_device.tables(record)
