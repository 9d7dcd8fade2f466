"""Benchmarks run in the process of the tests: most of a script's start is imports."""

import importlib
import runpy
import sys
from pathlib import Path

import jax
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch, capsys):
    """Runs ``python benchmarks/<name>.py <arguments>`` and returns what it prints."""

    def run(name: str, *arguments: str) -> str:
        path = str(BENCHMARKS / f"{name}.py")
        monkeypatch.syspath_prepend(BENCHMARKS)
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        # As in a process of its own: optax multiplies integers by floats.
        with jax.numpy_dtype_promotion("standard"):
            runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def module(monkeypatch):
    """Imports a module of the benchmarks by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module
