"""A folder of shards as data: its windows, its split, and what it refuses."""

import json

import numpy as np
import pytest

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import load
from gnomon.experiments.data.tokens import tokens

SIZES = {"a.npy": 1000, "b_val.npy": 205, "c.npy": 7, "d.npy": 333}


@pytest.fixture
def folder(tmp_path):
    """Shards of uneven sizes, the tokens of all of them in one count."""
    first = 0
    for name, size in SIZES.items():
        np.save(tmp_path / name, np.arange(first, first + size, dtype=np.uint16))
        first += size
    return tmp_path


def shard(name):
    """The tokens of a shard of `folder`."""
    first = sum(size for other, size in SIZES.items() if other < name)
    return np.arange(first, first + SIZES[name])


def cut(stream, length):
    """The windows of a stream, one by one."""
    starts = range(0, len(stream) - length, length)
    return [stream[start : start + length + 1] for start in starts]


def test_windows_go_through_every_shard_and_cross_none(folder):
    data = tokens(str(folder), 10, validation_shards="*val*", vocabulary=2000)
    expected = [
        window
        for name in ("a.npy", "c.npy", "d.npy")
        for window in cut(shard(name), 10)
    ]
    train, held = data.train["tokens"], data.validation["tokens"]
    assert train.shape == (len(expected), 11) == (99 + 33, 11)
    assert (len(train), train.dtype) == (132, np.uint16)
    np.testing.assert_array_equal(train[np.arange(132)], expected)
    np.testing.assert_array_equal(
        held[np.arange(len(held))], cut(shard("b_val.npy"), 10)
    )
    assert (data.unit, data.vocabulary, data.bytes_per_unit) == ("token", 2000, None)


def test_a_batch_is_a_new_array_in_the_order_asked_for(folder):
    windows = tokens(str(folder), 10, validation_fraction=0.05, vocabulary=2000)
    windows = windows.train["tokens"]
    batch = windows[np.array([[5, 0], [120, 5]])]
    assert batch.shape == (2, 2, 11)
    np.testing.assert_array_equal(batch[0, 0], batch[1, 1])
    batch[:] = 0
    assert windows[np.array([5])].max() > 0
    assert windows[np.array([], int)].shape == (0, 11)
    for wrong in (len(windows), -1, 0.5, slice(3)):
        with pytest.raises(IndexError):
            windows[np.array([wrong])]


def test_a_fraction_is_the_end_of_every_shard(folder):
    data = tokens(str(folder), 10, validation_fraction=0.2, vocabulary=2000)
    for split, part in (("train", np.s_[:800]), ("validation", np.s_[800:])):
        windows = getattr(data, split)["tokens"]
        expected = cut(shard("a.npy")[part], 10)
        np.testing.assert_array_equal(windows[np.arange(len(expected))], expected)
    seen = [
        set(getattr(data, split)["tokens"][np.arange(n)].ravel().tolist())
        for split, n in (("train", 121), ("validation", 29))
    ]
    assert not seen[0] & seen[1]


def test_the_split_is_a_hundredth_by_default(folder):
    data = tokens(str(folder), 5, vocabulary=2000)
    assert len(data.validation["tokens"]) == 1
    np.testing.assert_array_equal(
        data.validation["tokens"][np.array([0])], [shard("a.npy")[990:996]]
    )


def test_batches_are_those_of_arrays_in_memory(folder):
    # The same windows in an array, drawn by the same order.
    data = load(
        {"name": "tokens", "path": str(folder), "length": 5, "vocabulary": 2000}
    )
    windows = data.train["tokens"]
    held = windows[np.arange(len(windows))]
    for _ in range(2):
        order, again = data.order(batch=50, seed=3), data.order(batch=50, seed=3)
        order.next()
        again.set_state(json.loads(json.dumps(order.get_state())))
        for _ in range(6):
            indices = order.next()
            np.testing.assert_array_equal(indices, again.next())
            np.testing.assert_array_equal(windows[indices], held[indices])


def test_the_fingerprint_follows_names_types_sizes_and_samples(folder):
    def fingerprint():
        return tokens(str(folder), 5, vocabulary=2**17).fingerprint

    before = fingerprint()
    assert fingerprint() == before
    found = {before}
    np.save(folder / "a.npy", np.roll(shard("a.npy"), 1).astype(np.uint16))
    found.add(fingerprint())
    np.save(folder / "a.npy", shard("a.npy")[:-1].astype(np.uint16))
    found.add(fingerprint())
    np.save(folder / "a.npy", shard("a.npy").astype(np.uint16))
    assert fingerprint() == before
    (folder / "d.npy").rename(folder / "e.npy")
    found.add(fingerprint())
    for name in ("a.npy", "b_val.npy", "c.npy", "e.npy"):
        np.save(folder / name, np.load(folder / name).astype(np.uint32))
    found.add(fingerprint())
    assert len(found) == 5


def test_samples_of_a_large_shard_are_spread_over_it(tmp_path):
    large = np.zeros(100_000, np.uint16)
    np.save(tmp_path / "a.npy", large)
    before = tokens(str(tmp_path), 99, vocabulary=9).fingerprint
    for place in (0, 50_000 // 7 * 2 + 200, 99_999):
        changed = large.copy()
        changed[place] = 1
        np.save(tmp_path / "a.npy", changed)
        assert tokens(str(tmp_path), 99, vocabulary=9).fingerprint != before, place
        changed[place] = 9
        np.save(tmp_path / "a.npy", changed)
        with pytest.raises(ConfigError, match=r"a\.npy holds the token 9, .* of 9;"):
            tokens(str(tmp_path), 99, vocabulary=9)


def test_a_token_that_no_sample_holds_is_refused_when_it_is_drawn(tmp_path):
    large = np.zeros(100_000, np.uint16)
    large[5000] = 9
    np.save(tmp_path / "a.npy", large)
    windows = tokens(str(tmp_path), 10, vocabulary=9).train["tokens"]
    assert windows[np.array([498, 501])].max() == 0
    with pytest.raises(ConfigError, match=r"a\.npy holds the token 9, .* of 9;"):
        windows[np.array([498, 500])]


def write_meta(folder, **fields):
    (folder / "meta.json").write_text(json.dumps(fields))


def test_meta_says_what_arguments_need_not(folder):
    write_meta(folder, vocabulary=2000, bytes_per_token=3.5)
    data = tokens(str(folder), 5)
    assert (data.vocabulary, data.bytes_per_unit) == (2000, 3.5)
    data = tokens(str(folder), 5, vocabulary=3000, bytes_per_token=4.0)
    assert (data.vocabulary, data.bytes_per_unit) == (3000, 4.0)
    np.arange(100, dtype="<u4").tofile(folder / "e.bin")
    for name in SIZES:
        (folder / name).unlink()
    write_meta(folder, vocabulary=2000, dtype="uint32")
    assert (
        tokens(str(folder), 10, validation_fraction=0.3).train["tokens"].dtype == "u4"
    )


def test_bytes_a_token_are_those_of_the_validation_shards(folder):
    listed = {name: {"tokens": n, "bytes": 3 * n} for name, n in SIZES.items()}
    listed["b_val.npy"]["bytes"] = 4 * 205
    write_meta(folder, vocabulary=2000, bytes_per_token=3.1, shards=listed)
    assert tokens(str(folder), 5).bytes_per_unit == 3.1
    held = tokens(str(folder), 10, validation_shards="b*")
    assert held.bytes_per_unit == 4.0


def test_shards_that_are_not_those_of_meta_are_refused(folder):
    listed = {name: {"tokens": n, "bytes": n} for name, n in SIZES.items()}
    write_meta(folder, vocabulary=2000, shards=listed)
    tokens(str(folder), 5)
    np.save(folder / "d.npy", shard("d.npy")[:-5].astype(np.uint16))
    with pytest.raises(ConfigError, match=r"d.npy: of 328 tokens, by meta.json of 333"):
        tokens(str(folder), 5)
    write_meta(folder, vocabulary=2000, shards=list(SIZES))
    with pytest.raises(ConfigError, match=r"meta.json: its shards must each have"):
        tokens(str(folder), 5)
    write_meta(folder, vocabulary=2000, shards=listed)
    (folder / "d.npy").unlink()
    with pytest.raises(ConfigError, match=r"d.npy: is missing, by meta.json of 333"):
        tokens(str(folder), 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocabulary": None}, "config.data.vocabulary: not known"),
        ({"vocabulary": 0}, "config.data.vocabulary: 0 must be"),
        ({"vocabulary": 1500}, r"d.npy holds the token 1544, .* of 1500;"),
        ({"length": 0}, "config.data.length: 0 must be"),
        ({"length": 2000}, "needs 2001 tokens of one shard, .* train part .* has 990"),
        ({"length": 500}, "needs 501 tokens of one shard, .* validation .* has 10"),
        ({"validation_fraction": 1.0}, "1.0 must be between 0 and 1"),
        ({"validation_shards": "*x*"}, r"leaves no shard for validation; the 4 shards"),
        ({"validation_shards": "*"}, r"leaves no shard for train"),
        ({"validation_shards": "*", "validation_fraction": 0.1}, "exclude each other"),
        ({"dtype": "uint61"}, "did you mean 'uint16'"),
        ({"bytes_per_token": 0}, "config.data.bytes_per_token: 0 must be above 0"),
        ({"path": "nowhere"}, "there is no folder"),
        ({"lenght": 3}, "config.data.lenght: unknown field"),
    ],
)
def test_what_is_no_use_is_refused_by_name(folder, fields, message):
    section = {"name": "tokens", "path": str(folder), "length": 5, "vocabulary": 2000}
    with pytest.raises(ConfigError, match=message):
        load(section | fields)
