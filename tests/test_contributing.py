"""The method that CONTRIBUTING.md adds in two files works as it stands there."""

import importlib.util
import pathlib
import re
import sys

import jax
import pytest

from gnomon_contract import Problem, quadratic

TEXT = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
MODULE, TEST = re.findall(r"```py\n(.*?)```", TEXT, flags=re.DOTALL)


def load(name, source, folder, monkeypatch):
    path = folder / "source.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The two files, loaded as those that they say they are."""
    load("gnomon.optimizers.adaptive.signum", MODULE, tmp_path, monkeypatch)
    return load("test_signum", TEST, tmp_path, monkeypatch)


def test_the_example_tests_itself(example):
    tests = [name for name in dir(example) if name.startswith("test_")]
    assert tests
    for name in tests:
        getattr(example, name)()


def test_the_example_converges(example):
    (row,) = example.ROWS
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 4))}
    problem = Problem(params, quadratic)
    last, _ = jax.jit(lambda: problem.scan(row, row.build(), row.steps))()
    assert quadratic(last) < 1e-3 * quadratic(params)
