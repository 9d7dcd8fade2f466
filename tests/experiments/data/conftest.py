"""A small library to store, and a folder of its own to store it in."""

import pytest


@pytest.fixture
def library(tmp_path):
    """A tree of 120 Python files, with the kinds of file a corpus leaves out."""
    root = tmp_path / "library"
    for package in ("alpha", "beta"):
        for number in range(60):
            file = root / package / f"module_{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            # Not valid UTF-8: a corpus is bytes, whatever they spell.
            file.write_bytes(f"{package} = {number}\n".encode() * 5 + b"\xff\xfe\n")
    for left_out in (
        "test/test_alpha.py",
        "alpha/tests/test_beta.py",
        "alpha/idle_test/test_gamma.py",
        "site-packages/numpy/core.py",
        "alpha/data.txt",
    ):
        file = root / left_out
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("left out")
    return root


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """The folder in which this test stores data sets."""
    folder = tmp_path / "data"
    monkeypatch.setenv("GNOMON_DATA_DIR", str(folder))
    return folder
