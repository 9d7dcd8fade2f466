"""The metrics of a killed and resumed run are those of a run that was not killed."""

import json
import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from gnomon.experiments.records.metrics import MetricsWriter, read_metrics


def _write(folder, steps, **options):
    options.setdefault("tensorboard", False)
    with MetricsWriter(folder, **options) as writer:
        for step in steps:
            writer.write(step, {"train_loss": 1 / step})


def _events(folder):
    """All events of a folder's files, in TensorBoard's own order: by file name."""
    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            # TFRecord: length (8 bytes), its checksum (4), the record, its checksum.
            length = int.from_bytes(content[:8], "little")
            event = Event()
            event.ParseFromString(content[12 : 12 + length])
            events.append(event)
            content = content[16 + length :]
    return events


def test_rows_come_back_as_they_were_written(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"a": np.float32(0.5), "b": jnp.asarray(2.0), "n": np.int64(3)})
        # Seen at once, before the writer is closed.
        assert read_metrics(tmp_path) == [{"step": 1, "a": 0.5, "b": 2.0, "n": 3}]
        writer.write(2, {"a": 1e-30})
    assert read_metrics(tmp_path / "metrics.jsonl")[1] == {"step": 2, "a": 1e-30}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("-inf")])
def test_what_is_not_finite_is_text_and_reads_back(tmp_path, bad):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"loss": bad})
    text = (tmp_path / "metrics.jsonl").read_text()
    spelled = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(float(bad))]
    assert text == f'{{"step": 1, "loss": "{spelled}"}}\n'
    (row,) = read_metrics(tmp_path)
    np.testing.assert_equal(row["loss"], float(bad))


def test_resuming_drops_the_rows_after_the_checkpoint(tmp_path):
    _write(tmp_path / "whole", range(1, 11))
    _write(tmp_path / "broken", range(1, 8))
    _write(tmp_path / "broken", range(5, 11), resume_step=4)
    whole = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "broken" / "metrics.jsonl").read_bytes() == whole


@pytest.mark.parametrize("resume_step", [None, 0])
def test_starting_anew_drops_every_row(tmp_path, resume_step):
    _write(tmp_path, range(1, 8))
    _write(tmp_path, range(1, 3), resume_step=resume_step)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_a_last_line_torn_anywhere_is_no_row_and_is_dropped_on_resume(tmp_path):
    _write(tmp_path, [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    third = whole.rindex(b"\n", 0, -1) + 1
    for end in range(third, len(whole)):
        path.write_bytes(whole[:end])
        assert [row["step"] for row in read_metrics(path)] == [1, 2]
        _write(tmp_path, [3], resume_step=2)
        assert path.read_bytes() == whole


def test_resuming_a_whole_file_does_not_rewrite_it(tmp_path):
    """A sweep resumes thousands of trials; each rewrite would sync a file."""
    _write(tmp_path, [1, 2, 3])
    before = (tmp_path / "metrics.jsonl").stat()
    _write(tmp_path, [], resume_step=3)
    after = (tmp_path / "metrics.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not JSON"):
        read_metrics(tmp_path)


def test_a_missing_file_is_an_error_and_an_empty_one_has_no_rows(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / "metrics.jsonl")
    _write(tmp_path, [])
    assert read_metrics(tmp_path) == []


def test_a_closed_writer_says_so(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="are closed"):
        writer.write(1, {})


def test_each_row_is_one_write_to_the_system(tmp_path, monkeypatch):
    writes = []
    write = os.write
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        monkeypatch.setattr(os, "write", lambda fd, b: writes.append(b) or write(fd, b))
        writer.write(1, {"a": 1.0, "b": 2.0})
    assert [json.loads(line) for line in writes] == [{"step": 1, "a": 1.0, "b": 2.0}]


LOOP = """
import sys
from gnomon.experiments.records.metrics import MetricsWriter
writer = MetricsWriter(sys.argv[1], tensorboard=False)
for step in range(1, 10**9):
    writer.write(step, {"loss": step / 3, "text": "x" * 5000})
    if step == 50:
        print("running", flush=True)
"""


def test_kill_9_while_writing_loses_no_whole_row(tmp_path):
    command = [sys.executable, "-c", LOOP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "running\n"
        child.send_signal(signal.SIGKILL)
    rows = read_metrics(tmp_path)
    assert len(rows) >= 50
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    _write(tmp_path, [51], resume_step=50)
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 52))


def test_tensorboard_has_the_same_numbers(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(10, {"loss": 0.5, "note": "text is for the JSON file"})
        writer.write(20, {"loss": float("nan")})
    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in _events(tmp_path)
        for value in event.summary.value
    ]
    assert scalars[0] == (10, "loss", 0.5)
    assert scalars[1][:2] == (20, "loss")
    assert np.isnan(scalars[1][2])
    assert len(scalars) == 2


def test_tensorboard_purges_what_the_resumed_run_writes_again(tmp_path):
    _write(tmp_path, [10, 20, 30], tensorboard=True)
    _write(tmp_path, [30], tensorboard=True, resume_step=20)
    starts = [e.step for e in _events(tmp_path) if e.HasField("session_log")]
    # TensorBoard hides the earlier events from this step on.
    assert starts == [21]


def test_tensorboard_keeps_the_events_of_the_same_second(tmp_path, monkeypatch):
    """Its files are named by the second; a run may go back twice in one."""
    monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda: 1e9)
    _write(tmp_path, [10, 20], tensorboard=True, resume_step=0)
    _write(tmp_path, [20, 30], tensorboard=True, resume_step=10)
    steps = [e.step for e in _events(tmp_path) if e.summary.value]
    assert steps == [10, 20, 20, 30]


def test_a_new_run_removes_the_events_of_the_old_one(tmp_path):
    _write(tmp_path, [10, 20, 30], tensorboard=True)
    _write(tmp_path, [10], tensorboard=True)
    steps = [e.step for e in _events(tmp_path) if e.summary.value]
    assert steps == [10]


def test_tensorboardx_is_not_loaded_unless_asked_for(tmp_path):
    code = (
        "import sys; from gnomon.experiments.records.metrics import MetricsWriter\n"
        "MetricsWriter(sys.argv[1], tensorboard=False).write(1, {'a': 1.0})\n"
        "assert 'tensorboardX' not in sys.modules and 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
