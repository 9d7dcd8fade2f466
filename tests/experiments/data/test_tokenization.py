"""Tokenizing files: nothing lost, nothing done twice, and what is refused."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from tokenizers import Tokenizer

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.data import __main__ as command
from gnomon.experiments.data import corpus, documents, load, shard_writer
from gnomon.experiments.data.documents import Piece
from gnomon.experiments.data.tokenization import Options, tokenize
from gnomon.experiments.records import files
from gnomon.experiments.records.locks import lock

MODULES = ("abc", "bisect", "colorsys", "cmd", "copy", "heapq", "opcode", "stat")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Files of the standard library, one of them empty, one with a special token."""
    folder = tmp_path_factory.mktemp("sources")
    for name in MODULES:
        source = corpus.standard_library() / f"{name}.py"
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "empty.py").write_bytes(b"")
    text = "says <|endoftext|> and goes on: \u00e9\u4e16\U0001f600\r\n\t x\n"
    (folder / "special.py").write_text(text, newline="")
    return folder


def read(folder):
    """All tokens of a folder."""
    return np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])


def documents_of(folder):
    """The tokens of each document of a folder."""
    found, meta = read(folder), json.loads((folder / "meta.json").read_text())
    assert found[-1] == meta["end_of_text"]
    ends = np.flatnonzero(found == meta["end_of_text"])
    assert len(ends) == meta["documents"]
    return np.split(found, ends + 1)[:-1]


def texts(sources):
    """What the documents are, in order."""
    return [p.read_bytes() for p in sorted(sources.iterdir()) if p.stat().st_size]


def ask(sources, output, tokenizer="byte", **changes):
    return Options(str(sources / "*.py"), str(tokenizer), output, **changes)


@pytest.fixture(scope="module")
def bpe(sources, tmp_path_factory):
    """A folder of a trained BPE, in shards of 2,000 tokens."""
    folder = tmp_path_factory.mktemp("bpe") / "out"
    tokenize(ask(sources, folder, "bpe:400", shard_tokens=2000))
    return folder


def test_bytes_come_back(sources, tmp_path):
    meta = tokenize(ask(sources, tmp_path / "out"))
    found = [d[:-1].astype(np.uint8).tobytes() for d in documents_of(tmp_path / "out")]
    assert found == texts(sources)
    assert (meta["vocabulary"], meta["end_of_text"], meta["dtype"]) == (
        257,
        256,
        "uint16",
    )
    assert meta["bytes"] == sum(map(len, texts(sources)))
    assert meta["tokens"] == meta["bytes"] + meta["documents"]


def test_a_trained_bpe_comes_back(sources, bpe):
    tokenizer = Tokenizer.from_file(str(bpe / "tokenizer.json"))
    found = [tokenizer.decode(d[:-1]).encode() for d in documents_of(bpe)]
    assert found == texts(sources)
    meta = json.loads((bpe / "meta.json").read_text())
    assert meta["vocabulary"] == tokenizer.get_vocab_size() == 400
    assert meta["bytes_per_token"] == meta["bytes"] / meta["tokens"] > 1.5
    assert len(meta["shards"]) == len(list(bpe.glob("*.npy"))) > 5
    assert read(bpe).max() < 400


def test_its_shards_are_data(bpe):
    data = load({"name": "tokens", "path": str(bpe), "length": 16})
    assert (data.vocabulary, data.unit) == (400, "token")
    meta = json.loads((bpe / "meta.json").read_text())
    assert data.bytes_per_unit == meta["bytes_per_token"]
    first = data.train["tokens"][np.array([0])][0]
    np.testing.assert_array_equal(first, read(bpe)[:17])


def test_a_tokenizer_from_a_file_gives_the_same_tokens(sources, bpe, tmp_path):
    options = ask(sources, tmp_path / "out", bpe / "tokenizer.json")
    tokenize(options)
    np.testing.assert_array_equal(read(tmp_path / "out"), read(bpe))
    missing = ask(sources, tmp_path / "x", bpe / "tokenizer.json", end_of_text="</s>")
    with pytest.raises(UserError, match=r"no token '</s>' .* <\|endoftext\|>"):
        tokenize(missing)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("lock", "plan.json")
    }


class Killed(BaseException):
    """The end of a process, as far as its files can tell."""


def kill_at(monkeypatch, call, moment):
    """Ends everything at a write: before it, half way, or behind it."""
    whole, calls = files.write_bytes, iter(range(10**6))

    def write(path, *parts):
        if next(calls) != call:
            return whole(path, *parts)
        if moment == "half way":
            half = Path(path).with_name(f".{Path(path).name}.0.tmp")
            half.write_bytes(bytes(parts[0])[:10])
        if moment == "behind":
            whole(path, *parts)
        raise Killed

    monkeypatch.setattr(files, "write_bytes", write)


@pytest.mark.parametrize("moment", ["before", "half way", "behind"])
def test_a_killed_command_goes_on_where_it_stood(
    sources, bpe, tmp_path, monkeypatch, moment
):
    expected = contents(bpe)
    writes = len(expected) + 1  # and the plan
    options = ask(sources, tmp_path, "bpe:400", shard_tokens=2000)
    for call in range(0, writes, 4):
        folder = tmp_path / f"{moment} {call}"
        with monkeypatch.context() as patch:
            kill_at(patch, call, moment)
            with pytest.raises(Killed):
                tokenize(options._replace(output=folder))
        told = folder.glob(".tokenize/0*.json")
        kept = [folder / f"{path.stem}.npy" for path in told]
        before = [path.stat().st_ino for path in kept]
        assert len(kept) == max(0, (call - 2 + (moment == "behind")) // 2)
        tokenize(options._replace(output=folder))
        assert [path.stat().st_ino for path in kept] == before
        assert contents(folder) == expected, call


SLOW = """
import os, signal, sys
from gnomon.experiments.records import files
from gnomon.experiments.records.locks import lock
from gnomon.experiments.data import __main__ as command
whole = files.write_bytes
def write(path, *parts):
    whole(path, *parts)
    if str(path).endswith("00001.npy"):
        os.kill(os.getpid(), signal.SIGKILL)
files.write_bytes = write
command.run(sys.argv[1:])
"""


def test_kill_nine_and_the_same_command_again(sources, bpe, tmp_path, capsys):
    words = ["tokenize", f"--input={sources}/*.py", f"--output={tmp_path}/out"]
    words += ["--tokenizer=bpe:400", "--shard_tokens=2000"]
    killed = subprocess.run([sys.executable, "-c", SLOW, *words], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out/meta.json").exists()
    command.main(words)
    assert contents(tmp_path / "out") == contents(bpe)
    said = capsys.readouterr().out
    assert f"config.data = dict(name='tokens', path='{tmp_path}/out', length=" in said
    assert "config.model.vocab = 400" in said


def test_what_is_done_is_not_done_again(sources, bpe, monkeypatch):
    def refuse(*_):
        raise AssertionError("tokenized a second time")

    monkeypatch.setattr("gnomon.experiments.data.vocabulary.Library.encode", refuse)
    before = contents(bpe)
    tokenize(ask(sources, bpe, "bpe:400", shard_tokens=2000))
    assert contents(bpe) == before


def test_another_plan_in_the_same_folder_is_refused(sources, tmp_path):
    tokenize(ask(sources, tmp_path / "out"))
    for changes, named in (
        ({"shard_tokens": 9}, "--shard_tokens"),
        ({"tokenizer": "bpe:300"}, "--tokenizer"),
        ({"input": f"{sources}/a*.py"}, r"--input \(9 files"),
    ):
        options = ask(sources, tmp_path / "out")._replace(**changes)
        with pytest.raises(UserError, match=f"begun with another {named}"):
            tokenize(options)


def test_before_the_first_shard_another_plan_is_taken(sources, bpe, tmp_path):
    options = ask(sources, tmp_path / "out", "bpe:300", shard_tokens=2000)
    for wrong in ({"end_of_text": "</s>"}, {"tokenizer": str(bpe / "meta.json")}):
        with pytest.raises(UserError):
            tokenize(options._replace(**wrong))
    tokenize(options._replace(tokenizer="bpe:400"))
    assert contents(tmp_path / "out") == contents(bpe)


def test_two_at_once_are_refused(sources, tmp_path):
    with (
        lock(tmp_path / "out/.tokenize/lock"),
        pytest.raises(UserError, match=r"out is being written by process \d+"),
    ):
        tokenize(ask(sources, tmp_path / "out"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_in_tables(sources, tmp_path, kind):
    wanted = [text.decode() for text in texts(sources)] + ["last"]
    for number, part in enumerate((wanted[:4], wanted[4:])):
        file = tmp_path / f"{number}.{kind}"
        if kind == "jsonl":
            lines = [json.dumps({"id": 1, "body": text}) for text in [*part, ""]]
            file.write_text("\n\n".join(lines))
        else:
            table = pa.table({"id": range(len(part)), "body": part})
            parquet.write_table(table, file, row_group_size=3)
    options = Options(f"{tmp_path}/*.{kind}", "byte", tmp_path / "out", field="body")
    tokenize(options)
    found = documents_of(tmp_path / "out")
    assert [d[:-1].astype(np.uint8).tobytes().decode() for d in found] == wanted
    # From any document on, as a killed command goes on.
    for file in sorted(tmp_path.glob(f"*.{kind}")):
        whole = list(documents.read(file, 0, "body"))
        for number, piece in enumerate(whole):
            rest = list(documents.read(file, piece.next, "body"))
            assert rest == whole[number + 1 :]


def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(sources, bpe, monkeypatch):
    from gnomon.experiments.data.vocabulary import Library

    library = Library(Tokenizer.from_file(str(bpe / "tokenizer.json")), "<|endoftext|>")
    file = sources / "stat.py"
    (whole,) = documents.read(file, 0, "")
    monkeypatch.setattr(documents, "PIECE", 1300)
    pieces = list(documents.read(file, 0, ""))
    assert len(pieces) > 4
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(piece.text[-1:] == b"\n" for piece in pieces)
    assert list(documents.read(file, pieces[1].next, "")) == pieces[2:]
    one, *_ = library.encode([whole])
    np.testing.assert_array_equal(np.concatenate(library.encode(pieces)), one)


def test_a_text_is_cut_at_a_line_end_without_spaces_around(tmp_path, monkeypatch):
    # Elsewhere GPT-2's rule splits words by what follows, which a piece does not see.
    for text in (b"one\ntwo \nthree", b"one\ntwo\n\nthree", b"one\ntwo\n three"):
        monkeypatch.setattr(documents, "PIECE", len(text))
        (tmp_path / "x.txt").write_bytes(text + b"!")
        first, *_ = documents.read(tmp_path / "x.txt", 0, "")
        assert first.text == b"one\n"


def test_a_long_line_is_cut_between_characters(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE", 10)
    for width in (1, 2, 3, 4):
        text = (
            " " * width
            + {1: "a", 2: "\u00e9", 3: "\u4e16", 4: "\U0001f600"}[width] * 20
        )
        (tmp_path / "x.txt").write_text(text)
        pieces = list(documents.read(tmp_path / "x.txt", 0, ""))
        assert "".join(piece.text.decode() for piece in pieces) == text


def test_what_is_not_utf8_is_refused_or_replaced(sources, bpe, tmp_path):
    (tmp_path / "latin.py").write_bytes(b"caf\xe9\n")
    options = ask(tmp_path, tmp_path / "out", bpe / "tokenizer.json")
    with pytest.raises(UserError, match=r"latin.py is not UTF-8 at byte 3; --errors"):
        tokenize(options)
    meta = tokenize(options._replace(errors="replace", output=tmp_path / "other"))
    tokenizer = Tokenizer.from_file(str(bpe / "tokenizer.json"))
    assert tokenizer.decode(read(tmp_path / "other")[:-1]) == "caf\ufffd\n"
    assert meta["bytes"] == 5


@pytest.mark.parametrize(
    ("name", "content", "changes", "message"),
    [
        ("x.jsonl", '{"text": "a"}\n\n{"tex": 1}\n', {}, r"x.jsonl:3: no JSON object"),
        ("x.jsonl", '{"text": "a"}\n[1]\n', {}, r"x.jsonl:2: .*--field"),
        ("x.jsonl", '{"text": null}\n', {}, r"x.jsonl:1: 'text' is a NoneType"),
        ("x.jsonl", "{", {}, r"x.jsonl:1: .*JSONDecodeError"),
        ("x.txt", "", {}, "the files hold no text"),
        ("x.txt", "a", {"tokenizer": "bpe:256"}, "at least 257 tokens"),
        ("x.txt", "a", {"tokenizer": "gpt2"}, "gpt2: no such file; give byte, bpe:"),
        ("x.txt", "a", {"input": "nowhere*"}, "there is no such file"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(tmp_path, name, content, changes, message):
    (tmp_path / name).write_text(content)
    options = Options(str(tmp_path / name), "byte", tmp_path / "out")
    with pytest.raises(UserError, match=message):
        tokenize(options._replace(**changes))


def test_what_is_no_tokenizer_or_no_column_is_refused(sources, tmp_path):
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer.json is no tokenizer"):
        tokenize(ask(sources, tmp_path / "out", tmp_path / "t.json"))
    file = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"body": ["a", None]}), file)
    with pytest.raises(UserError, match="no column 'text', but body; --field"):
        list(documents.read(file, 0, "text"))
    with pytest.raises(UserError, match="row 2 holds a NoneType"):
        list(documents.read(file, 0, "body"))


def test_a_wide_vocabulary_takes_four_bytes():
    class Wide:
        size, end_of_text = 2**16 + 1, 2**16

    shard = shard_writer.ShardWriter(Wide())
    shard.add(Piece(b"ab", True, Path("x"), 0, 2), np.array([2**16, 5], np.uint32))
    assert shard.tokens == 3
    assert shard_writer.dtype_of(Wide()) == "uint32"


def test_the_command_says_what_is_wrong_in_a_line(tmp_path):
    words = ["tokenize", f"--input={tmp_path}/*", "--tokenizer=byte"]
    with pytest.raises(UserError, match="--output"):
        command.main(words)
    with pytest.raises(UserError, match="--shard_tokens: must be at least 1"):
        command.main([*words, f"--output={tmp_path}", "--shard_tokens=0"])
