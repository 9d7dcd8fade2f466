"""Small tables as data: wine, and MovieLens where its package is."""

import sys

import numpy as np
import pytest

from gnomon.experiments.data import load
from gnomon.experiments.data.ratings import FILE, movielens


def test_wine_is_badly_scaled_and_split_evenly():
    data = load({"name": "wine"})
    train, held = data.train, data.validation
    assert train["features"].shape == (144, 13)
    assert held["features"].shape == (34, 13)
    spread = np.std(train["features"], axis=0)
    assert spread.max() / spread.min() > 1000
    share = [np.bincount(part["label"]) / len(part["label"]) for part in (train, held)]
    np.testing.assert_allclose(*share, atol=0.02)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that holds ratings, as recbole does."""
    monkeypatch.delitem(sys.modules, "recbole", raising=False)
    path = tmp_path / "recbole" / FILE
    path.parent.mkdir(parents=True)
    (tmp_path / "recbole" / "__init__.py").write_text("raise ImportError('not run')")
    rng = np.random.default_rng(0)
    rows = zip(
        rng.integers(1, 9, 50),
        rng.integers(1, 7, 50),
        rng.integers(1, 6, 50),
        rng.permutation(50) + 880_000_000,
        strict=True,
    )
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += ["\t".join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    return path


def test_ratings_are_read_from_the_package_without_importing_it(package):
    data = movielens()
    assert data.train["pair"].shape == (45, 2)
    assert data.validation["rating"].shape == (5,)
    assert data.train["pair"].min() == 0
    table = np.loadtxt(package, skiprows=1)
    table = table[np.argsort(table[:, 3])]
    np.testing.assert_array_equal(data.validation["rating"], table[9::10, 2])
    np.testing.assert_array_equal(data.validation["pair"] + 1, table[9::10, :2])


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "recbole", raising=False)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps recbole"):
        movielens()
