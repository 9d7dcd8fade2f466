"""Shards of tokens: every format gives the same tokens, and damage is named."""

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import shards

TOKENS = np.random.default_rng(0).integers(0, 60_000, 1_000).astype("<u2")


def header(magic=20240520, version=1, count=1000):
    fields = np.zeros(256, "<i4")
    fields[:3] = magic, version, count
    return fields.tobytes()


def write_records(path, tokens, each=300):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for start in range(0, len(tokens), each):
        writer.write(tokens[start : start + each].tobytes())
    writer.close()


@pytest.fixture
def every_format(tmp_path):
    """The same tokens in all formats, in the order of their names."""
    write_records(tmp_path / "a.array_record", TOKENS)
    write_records(tmp_path / "b.array_record-00000-of-00001", TOKENS, each=500)
    (tmp_path / "c.bin").write_bytes(header() + TOKENS.tobytes())
    (tmp_path / "d.bin").write_bytes(TOKENS.tobytes())
    np.save(tmp_path / "e.npy", TOKENS)
    (tmp_path / ".f.npy.0.tmp").write_bytes(b"half")
    (tmp_path / "meta.json").write_text("{}")
    return shards.open_shards(tmp_path, np.dtype("<u2"))


def test_every_format_holds_the_same_tokens(every_format):
    assert [shard.path.name[0] for shard in every_format] == list("abcde")
    spans = [(0, 1000), (0, 1), (299, 301), (300, 600), (450, 950), (999, 1000), (7, 7)]
    for shard in every_format:
        assert (shard.count, shard.dtype) == (1000, TOKENS.dtype)
        for start, stop in spans:
            found = shard.read(start, stop)
            np.testing.assert_array_equal(found, TOKENS[start:stop], shard.path.name)


def test_a_large_vocabulary_has_a_header_of_its_own(tmp_path):
    wide = TOKENS.astype("<u4") + 2**17
    (tmp_path / "x.bin").write_bytes(header(20240801, 7) + wide.tobytes())
    (shard,) = shards.open_shards(tmp_path)
    np.testing.assert_array_equal(shard.read(0, 1000), wide)


def test_few_files_are_open_however_many_shards_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_MOST_OPEN", 3)
    for number in range(20):
        np.save(tmp_path / f"{number:02d}.npy", TOKENS + number % 2)
    opened = shards.open_shards(tmp_path)
    for number in [*range(20), *range(20)]:
        found = opened[number].read(5, 9)
        np.testing.assert_array_equal(found, TOKENS[5:9] + number % 2)
    assert opened[0].opened.cache_info().currsize == 3


@pytest.mark.parametrize(
    ("name", "content", "dtype", "message"),
    [
        ("x.bin", header(version=2) + bytes(2000), None, "version 2, of which ve.* 1"),
        ("x.bin", header(magic=20250211) + bytes(2000), None, "begins with 20250211"),
        (
            "x.bin",
            header(count=999) + bytes(2000),
            None,
            "says 999 .* 3022 .* has 3024",
        ),
        ("x.bin", header() + bytes(2000), "<u4", "uint16 by its header, but uint32"),
        ("x.bin", b"", None, "no header that is known"),
        ("x.bin", TOKENS.tobytes(), None, "config.data.dtype='uint16'"),
        ("x.bin", bytes(1001), "<u2", "1001 bytes, which is no whole number of uint16"),
        ("x.npy", b"not numpy", None, "not a .npy file"),
        ("x.array_record", bytes(500), "<u2", "damaged, or no ArrayRecord"),
        ("x.array_record", b"", None, "does not say how its tokens are stored"),
        ("x.txt", b"text", None, "holds no shards"),
    ],
)
def test_what_is_no_shard_is_refused(tmp_path, name, content, dtype, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        shards.open_shards(tmp_path, dtype and np.dtype(dtype))


@pytest.mark.parametrize(
    "array", [TOKENS.astype(np.int64), TOKENS.reshape(10, 100), TOKENS.astype(">u2")]
)
def test_an_array_of_another_kind_is_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ConfigError, match="one-dimensional uint8, uint16 or uint32"):
        shards.open_shards(tmp_path)


def test_an_array_that_was_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", TOKENS)
    whole = (tmp_path / "x.npy").read_bytes()
    (opened,) = shards.open_shards(tmp_path)
    (tmp_path / "x.npy").write_bytes(whole[:-10])
    with pytest.raises(ConfigError, match="has become shorter"):
        opened.read(990, 1000)
    with pytest.raises(ConfigError, match="says 1000 tokens"):
        shards.open_shards(tmp_path)


def test_records_of_several_lengths_are_refused(tmp_path):
    writer = ArrayRecordWriter(str(tmp_path / "x.array_record"), "group_size:1")
    for size in (100, 80, 100):
        writer.write(TOKENS[:size].tobytes())
    writer.close()
    (opened,) = shards.open_shards(tmp_path, np.dtype("<u2"))
    with pytest.raises(
        ConfigError, match="record 1 holds 80 tokens, the first one 100"
    ):
        opened.read(90, 110)
    write_records(tmp_path / "x.array_record", TOKENS[:150], each=75)
    with pytest.raises(ConfigError, match=r"150 bytes, .* of uint32"):
        shards.open_shards(tmp_path, np.dtype("<u4"))


def test_shards_of_two_types_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", TOKENS)
    np.save(tmp_path / "b.npy", TOKENS.astype("<u4"))
    with pytest.raises(ConfigError, match=r"a.npy holds uint16 and b.npy uint32"):
        shards.open_shards(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        shards.open_shards(tmp_path / "nowhere")
