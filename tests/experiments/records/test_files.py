"""Files are whole or absent, JSON is JSON, and locks die with their owner."""

import json
import os
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest

from gnomon.experiments.records.files import jsonable, read_json, write_json, write_text
from gnomon.experiments.records.locks import lock


def _python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


HOLD = """
import sys
from gnomon.experiments.records.locks import lock
held = lock(sys.argv[1])
print(held.acquired, flush=True)
sys.stdin.read()
"""

COUNT = """
import sys
from pathlib import Path
from gnomon.experiments.records.locks import lock
counter = Path(sys.argv[1])
for _ in range(100):
    with lock(sys.argv[2], blocking=True):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_json_round_trip_keeps_every_finite_value(tmp_path):
    value = {"a": [1, 2.5, True, None, "é\n"], "b": {"c": [], "d": 1e-320, "e": 2**70}}
    write_json(tmp_path / "new" / "folder" / "x.json", value)
    assert read_json(tmp_path / "new" / "folder" / "x.json") == value


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_numbers_become_text_in_every_form_and_read_back(tmp_path, bad):
    write_json(
        tmp_path / "x.json",
        {
            "float": bad,
            "f32": np.float32(bad),
            "bf16": ml_dtypes.bfloat16(bad),
            "array": np.array([1.0, bad]),
            "nested": [{"x": (bad,)}],
        },
    )

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = (tmp_path / "x.json").read_text()
    word = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(bad)]
    for found, wanted in (
        (json.loads(text, parse_constant=refuse), word),
        (read_json(tmp_path / "x.json"), bad),
    ):
        np.testing.assert_equal(
            found,
            {
                "float": wanted,
                "f32": wanted,
                "bf16": wanted,
                "array": [1.0, wanted],
                "nested": [{"x": [wanted]}],
            },
        )


def test_numpy_scalars_become_plain_numbers():
    values = [np.int64(3), np.uint8(4), np.float32(0.1), np.bool_(True)]
    plain = jsonable(values)
    assert [type(x) for x in plain] == [int, int, float, bool]
    assert np.float32(plain[2]) == np.float32(0.1)


def test_an_object_that_is_not_json_is_named_and_the_old_file_stays(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"good": 1})
    with pytest.raises(TypeError, match=r"value\['a'\]\[1\] is of type object"):
        write_json(path, {"a": [1, object()]})
    assert read_json(path) == {"good": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_failed_rename_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path):
    path = tmp_path / "x.txt"
    texts = ["a" * 200_000, "b" * 300_000]
    write_text(path, texts[0])
    done = threading.Event()

    def write():
        for round_ in range(30):
            write_text(path, texts[round_ % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_text())
    writer.join()
    assert seen <= set(texts)


def test_the_file_reaches_the_disk_before_its_name_does(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (order.append("rename"), replace(a, b))
    )
    write_text(tmp_path / "x.txt", "text")
    assert order == ["sync", "rename", "sync"]


def test_a_broken_json_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")


def test_a_lock_keeps_another_process_out_and_names_its_owner(tmp_path):
    with _python(HOLD, tmp_path / "lock") as child:
        assert child.stdout.readline() == "True\n"
        refused = lock(tmp_path / "lock")
        assert not refused.acquired
        assert refused.owner.startswith(f"process {child.pid} on ")
        child.stdin.close()
        child.wait()
    with lock(tmp_path / "lock") as held:
        assert held.acquired
        assert held.owner.startswith(f"process {os.getpid()} on ")


def test_kill_9_releases_the_lock_and_the_file_stays(tmp_path):
    with _python(HOLD, tmp_path / "lock") as child:
        assert child.stdout.readline() == "True\n"
        inode = (tmp_path / "lock").stat().st_ino
        child.kill()
        child.wait()
        with lock(tmp_path / "lock") as held:
            assert held.acquired
    assert (tmp_path / "lock").stat().st_ino == inode


def test_processes_that_wait_for_the_lock_lose_no_update(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = [_python(COUNT, counter, tmp_path / "lock") for _ in range(3)]
    for child in children:
        with child:
            child.communicate()
        assert child.returncode == 0
    assert counter.read_text() == "300"


def test_a_released_handle_neither_holds_nor_releases_a_second_time(tmp_path):
    first = lock(tmp_path / "lock")
    first.release()
    second = lock(tmp_path / "lock")
    first.release()
    assert not first.acquired
    assert second.acquired
    assert not lock(tmp_path / "lock").acquired
    second.release()
