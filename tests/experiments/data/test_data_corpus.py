"""The corpus: what is in it, how it is split, and how it survives being stored."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from gnomon.experiments.data import corpus, text

STORE = """
import sys
from pathlib import Path
from gnomon.experiments.data import corpus
print(corpus.read_text(Path(sys.argv[1])).fingerprint)
"""

DIE_HALF_WAY = """
import os, signal, sys
from pathlib import Path
from gnomon.experiments.data import corpus
whole = corpus.StdlibText._generate_examples
def half(self, *arguments):
    for count, example in enumerate(whole(self, *arguments)):
        if count == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        yield example
corpus.StdlibText._generate_examples = half
corpus.stored_corpus(Path(sys.argv[1]))
"""


def start(script, root):
    return subprocess.Popen(
        [sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, text=True
    )


def records(builder, split):
    """The stored files of a split, by path, in stored order."""
    return {
        record["path"].decode(): record["content"]
        for record in builder.as_data_source(split=split)
    }


def test_tests_packages_and_other_files_are_left_out(library):
    found = corpus.python_files(library)
    assert len(found) == 120
    assert list(found) == sorted(found)
    assert {path.split("/")[0] for path in found} == {"alpha", "beta"}


def test_split_is_by_file_and_covers_every_byte(library, data_folder):
    builder = corpus.stored_corpus(library)
    train, validation = records(builder, "train"), records(builder, "validation")
    assert train
    assert validation
    assert not train.keys() & validation.keys()
    assert train | validation == corpus.python_files(library)


def test_a_file_keeps_its_split_when_another_goes(library, data_folder):
    before = corpus.stored_corpus(library)
    (library / "alpha/module_3.py").unlink()
    after = corpus.stored_corpus(library)
    for split in ("train", "validation"):
        kept = [p for p in records(before, split) if p != "alpha/module_3.py"]
        assert list(records(after, split)) == kept


def test_streams_are_the_stored_files_with_a_zero_between(library, data_folder):
    found = corpus.read_text(library)
    builder = corpus.stored_corpus(library)
    for split in ("train", "validation"):
        joined = b"\0".join(records(builder, split).values())
        assert getattr(found, split).tobytes() == joined


def test_fingerprint_is_the_same_in_another_folder(library, data_folder, tmp_path):
    copy = tmp_path / "copy"
    library.rename(copy)
    here = corpus.read_text(copy)
    copy.rename(library)
    there = corpus.read_text(library)
    assert here is not there
    assert here.fingerprint == there.fingerprint
    np.testing.assert_array_equal(here.train, there.train)


@pytest.mark.parametrize("change", ["content", "name", "boundary"])
def test_fingerprint_changes_with_every_change(change):
    contents = {"a.py": b"one", "b.py": b"two"}
    changed = {
        "content": {"a.py": b"one", "b.py": b"twO"},
        "name": {"a.py": b"one", "c.py": b"two"},
        "boundary": {"a.py": b"onet", "b.py": b"wo"},
    }
    assert corpus.fingerprint(contents) != corpus.fingerprint(changed[change])


def test_changed_files_are_stored_beside_the_old_ones(library, data_folder):
    before = corpus.stored_corpus(library).data_dir
    (library / "alpha/module_3.py").write_text("changed = True\n")
    after = corpus.stored_corpus(library).data_dir
    assert before != after


def test_stored_files_are_read_and_not_stored_again(library, data_folder, monkeypatch):
    corpus.stored_corpus(library)

    def refuse(*_):
        raise AssertionError("stored a second time")

    monkeypatch.setattr(corpus.StdlibText, "_generate_examples", refuse)
    assert len(records(corpus.stored_corpus(library), "train")) > 100


def test_two_processes_at_once_both_succeed(library, data_folder):
    processes = [start(STORE, library) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1]
    assert printed[0].strip() == corpus.read_text(library).fingerprint
    assert len(list(data_folder.glob("stdlib_text/*/*"))) == 1


def test_a_killed_writer_leaves_nothing_that_is_read(library, data_folder):
    killed = start(DIE_HALF_WAY, library)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = data_folder.glob("stdlib_text/*/*")
    assert leftover.name.startswith("incomplete")

    files = corpus.python_files(library)
    assert corpus.read_text(library).fingerprint == corpus.fingerprint(files)
    (stored,) = data_folder.glob("stdlib_text/*/*")
    assert stored.name == "1.0.0"


def test_damaged_records_are_refused_by_name(library, data_folder):
    builder = corpus.stored_corpus(library)
    metadata = builder.data_path / "metadata.json"
    metadata.write_text('{"fingerprint": "%s"}' % ("0" * 64))
    with pytest.raises(ValueError, match=rf"{builder.data_dir} is damaged.*remove"):
        corpus.read_text(library)


def test_a_folder_without_python_files_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.py files"):
        corpus.python_files(tmp_path)


@pytest.mark.parametrize("size", [7, 8, 13, 64, 65, 66, 1000])
@pytest.mark.parametrize("length", [1, 5, 6])
def test_windows_equal_naive_slices_without_a_copy(size, length):
    stream = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    naive = []
    start = 0
    while start + length + 1 <= size:
        naive.append(stream[start : start + length + 1])
        start += length
    cut = text.windows(stream, length)
    np.testing.assert_array_equal(cut, np.stack(naive))
    assert cut.shape == ((size - 1) // length, length + 1)
    assert np.shares_memory(cut, stream)


def test_the_real_standard_library(data_folder):
    found = corpus.read_text(corpus.standard_library())
    total = len(found.train) + len(found.validation)
    assert 8e6 < total < 20e6
    assert 0.05 < len(found.validation) / total < 0.11
    # English and code, not compressed or binary: mostly printable ASCII.
    printable = np.mean((found.train >= 32) & (found.train < 127))
    assert printable > 0.9
    assert b"def test_" not in found.validation.tobytes()[:1000]
