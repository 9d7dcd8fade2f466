"""``load``: names and fields of a config, and what it refuses."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from ml_collections import ConfigDict

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import Dataset, corpus, digits, load


@pytest.fixture
def small_text(library, data_folder, monkeypatch):
    """The small library in the place of the standard library."""
    monkeypatch.setattr(corpus, "standard_library", lambda: library)
    return corpus.read_text(library)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A module of the user's own, with loaders good and bad."""
    (tmp_path / "users_own.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from gnomon.experiments.data import Dataset

            def ramp(n, sizes=(1,)):
                x = np.arange(n * sizes[0], dtype=np.float32)
                return Dataset({"x": x}, {"x": x}, "00", "example")

            def bare(n=3):
                return np.arange(n)

            def ragged():
                x = np.arange(3)
                return Dataset({"x": x, "y": x[:2]}, {"x": x}, "00", "example")
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("users_own", None)


def test_text_is_windows_of_the_capped_streams(small_text):
    data = load(
        {
            "name": "stdlib_text",
            "length": 11,
            "train_bytes": 500,
            "validation_bytes": 100,
        }
    )
    assert data.unit == "byte"
    assert data.fingerprint == small_text.fingerprint
    for split, cap in (("train", 500), ("validation", 100)):
        tokens = getattr(data, split)["tokens"]
        assert tokens.dtype == np.uint8
        assert tokens.shape == ((cap - 1) // 11, 12)
        stream = getattr(small_text, split)
        np.testing.assert_array_equal(tokens[3], stream[33:45])


def test_a_cap_beyond_the_text_takes_all_of_it(small_text):
    fields = {"name": "stdlib_text", "length": 13}
    capped = load({**fields, "train_bytes": 10**9})
    np.testing.assert_array_equal(capped.train["tokens"], load(fields).train["tokens"])


def test_digits_are_balanced_and_disjoint(data_folder):
    data = load({"name": "digits"})
    assert data.unit == "example"
    for split, count in (("train", 4000), ("validation", 1000)):
        arrays = getattr(data, split)
        assert arrays["image"].shape == (count, 28, 28, 1)
        assert arrays["image"].dtype == np.uint8
        assert arrays["label"].dtype == np.int32
        np.testing.assert_array_equal(arrays["label"], np.arange(count) % 10)
    train, validation = (
        {image.tobytes() for image in getattr(data, split)["image"]}
        for split in ("train", "validation")
    )
    assert not train & validation
    # Ink lies in the middle of a digit, not on its border.
    mean = data.train["image"].mean(axis=(0, 3))
    assert mean[10:18, 10:18].mean() > 20 * mean[[0, -1]].mean()


def test_stratify_handles_uneven_classes():
    labels = np.array([2] * 10 + [0] * 5 + [1] * 4)
    split = digits.stratify(np.arange(19), labels)
    assert np.bincount(split["train"]["label"]).tolist() == [4, 4, 8]
    assert np.bincount(split["validation"]["label"]).tolist() == [1, 0, 2]
    both = np.concatenate([split[s]["image"] for s in ("train", "validation")])
    assert sorted(both) == list(range(19))
    for arrays in split.values():
        np.testing.assert_array_equal(labels[arrays["image"]], arrays["label"])


def test_the_same_section_gives_the_same_read_only_arrays(small_text):
    fields = {"name": "stdlib_text", "length": 9}
    first = load(fields)
    assert load(ConfigDict(fields)) is first
    with pytest.raises(ValueError, match="read-only"):
        first.train["tokens"][0, 0] = 0


def test_a_function_of_the_users_own(user_module):
    data = load({"name": "users_own.ramp", "n": 4, "sizes": [2, 3]})
    assert isinstance(data, Dataset)
    assert data.train["x"].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "config.data.name: missing; give one of stdlib_text, digits, wine"),
        ({"name": "stdlib_txt"}, "'stdlib_txt'; did you mean 'stdlib_text'"),
        (
            {"name": "stdlib_text", "lenght": 8},
            r"config.data.lenght: unknown field; did you mean 'length'",
        ),
        ({"name": "stdlib_text", "length": 0}, "config.data.length: 0 must be"),
        ({"name": "stdlib_text", "length": 8.0}, "config.data.length: 8.0 must be"),
        ({"name": "stdlib_text", "train_bytes": -1}, "config.data.train_bytes: -1"),
        (
            {"name": "stdlib_text", "length": 64, "validation_bytes": 64},
            "needs 65 bytes, but config.data.validation_bytes leaves 64",
        ),
        ({"name": "stdlib_text/large"}, "config.data.dataset: unknown field"),
        ({"name": "tfds"}, "config.data.dataset: missing"),
        ({"name": "no_such_module.loader"}, "cannot import 'no_such_module.loader'"),
        ({"name": "users_own.ramb"}, "did you mean 'ramp'"),
        ({"name": "users_own.ramp"}, "config.data.n: missing"),
        ({"name": "users_own.bare"}, "users_own.bare returned a ndarray"),
        ({"name": "users_own.ragged"}, r"they hold {'x': 3, 'y': 2}"),
        ({"name": "users_own.ramp", "n": 0}, r"at least one; they hold {'x': 0}"),
        ({"name": "digits", "seed": {1}}, "values must be JSON's"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_field(
    fields, message, small_text, user_module
):
    with pytest.raises(ConfigError, match=message):
        load(fields)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    from gnomon.experiments.data import storage

    monkeypatch.setenv("GNOMON_DATA_DIR", str(tmp_path))
    assert storage.data_dir() == tmp_path
    monkeypatch.delenv("GNOMON_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert storage.data_dir() == tmp_path / "cache/gnomon/data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert storage.data_dir() == tmp_path / "home/.cache/gnomon/data"


def test_tensorflow_is_never_imported_and_the_rest_late(data_folder, tmp_path):
    # A TensorFlow that is there and must not be touched.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise SystemExit('imported')")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import gnomon.experiments.data as data
heavy = {{"tensorflow_datasets", "grain", "jax", "mlxtend"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
for name in ("stdlib_text", "digits"):
    loaded = data.load({{"name": name}})
    data.Order(len(loaded.train[list(loaded.train)[0]]), 16, 0).next()
assert "tensorflow" not in sys.modules
"""
    # A thread left running would keep the process from ending.
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""


def test_the_command_stores_and_describes(data_folder):
    command = [sys.executable, "-m", "gnomon.experiments.data"]
    good = subprocess.run([*command, "digits"], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert str(data_folder) in good.stdout
    assert "4000 x 28 x 28 x 1" in good.stdout
    assert load({"name": "digits"}).fingerprint in good.stdout
    bad = subprocess.run([*command, "digit"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert "did you mean 'digits'" in bad.stderr
    assert "Traceback" not in bad.stderr
