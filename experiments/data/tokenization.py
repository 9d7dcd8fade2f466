"""Tokenizes files into shards: ``python -m gnomon.experiments.data tokenize``.

Documents follow one another in the order of their files' names, each with an end of
text behind it. A shard ends with the piece that fills it, and where the next one begins
is recorded when it is whole on disk. A command that was killed goes on there, and ends
with the files, to the byte, of one that was not.
"""

import glob
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.data import documents, vocabulary
from gnomon.experiments.data.documents import Piece
from gnomon.experiments.data.shard_writer import (
    WORK,
    Position,
    ShardWriter,
    dtype_of,
    finished,
)
from gnomon.experiments.data.tokens import META
from gnomon.experiments.records import files
from gnomon.experiments.records.locks import lock

TOKENIZER, _PLAN = "tokenizer.json", "plan.json"
# Text that is tokenized at once; large enough for all cores to have a part.
_BATCH = 2**22


class Options(NamedTuple):
    """What is asked for.

    Attributes:
      input: a pattern of files; ``**`` stands for folders of any depth.
      tokenizer: ``byte``, ``bpe:SIZE``, or a tokenizer's file.
      output: the folder of the shards.
      field: where JSON lines and Parquet hold the text.
      end_of_text: the token of a tokenizer's file that ends a document.
      errors: ``strict`` or ``replace``, for what is not UTF-8.
      shard_tokens: a shard ends with the piece that reaches so many.
      train_bytes: about so much text, evenly spread, is what BPE is trained on.
    """

    input: str
    tokenizer: str
    output: Path
    field: str = "text"
    end_of_text: str = vocabulary.END_OF_TEXT
    errors: str = "strict"
    shard_tokens: int = 2**26
    train_bytes: int = 2**29


def tokenize(
    options: Options, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Writes the shards that are not there yet, and ``meta.json`` when all are.

    Args:
      options: what is asked for.
      progress: told after each batch of text how many bytes of the input are done, and
        how many there are.

    Returns:
      What ``meta.json`` holds.

    Raises:
      UserError: names the file, the option, or what differs from an earlier run.
    """
    found = _inputs(options.input)
    work = options.output / WORK
    with lock(work / "lock") as held:
        if not held.acquired:
            raise UserError(f"{options.output} is being written by {held.owner}")
        for left in itertools.chain(
            *(f.glob(".*.tmp") for f in (options.output, work))
        ):
            left.unlink()
        records = finished(options.output)
        _same_plan(options, found, begun=bool(records))
        total = sum(size for _, size in found)
        progress(0, total)
        tokenizer = _tokenizer(options, found)
        start = Position(*records[-1]["next"]) if records else Position(0, 0)
        before = [0, *itertools.accumulate(size for _, size in found)]

        def pieces() -> Iterator[tuple[int, Piece]]:
            for number in range(start.file, len(found)):
                offset = start.offset if number == start.file else 0
                for piece in documents.read(found[number][0], offset, options.field):
                    yield number, piece

        shard = ShardWriter(tokenizer)
        for batch in _batches(pieces()):
            encoded = tokenizer.encode([piece for _, piece in batch])
            for (number, piece), ids in zip(batch, encoded, strict=True):
                shard.add(piece, ids)
                if shard.tokens >= options.shard_tokens:
                    position = Position(number, piece.next)
                    records.append(shard.write(options.output, len(records), position))
                    shard = ShardWriter(tokenizer)
            progress(before[number] + min(piece.next, found[number][1]), total)
        if shard.tokens:
            end = Position(len(found), 0)
            records.append(shard.write(options.output, len(records), end))
        if not records:
            raise UserError(f"--input={options.input}: the files hold no text")
        meta = _meta(options, tokenizer, records)
        files.write_json(options.output / META, meta)
    return meta


def _inputs(pattern: str) -> list[tuple[Path, int]]:
    """The files of a pattern and their sizes, sorted by path."""
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    paths = sorted(Path(name).absolute() for name in found if os.path.isfile(name))
    if not paths:
        raise UserError(f"--input={pattern}: there is no such file")
    return [(path, path.stat().st_size) for path in paths]


def _same_plan(
    options: Options, found: Sequence[tuple[Path, int]], *, begun: bool
) -> None:
    """Records what is asked for; where shards are there, it must be as it was."""
    asked: dict[str, Any] = options._asdict()
    del asked["output"], asked["input"]
    if asked["tokenizer"] != "byte" and not vocabulary.asked_size(asked["tokenizer"]):
        content = vocabulary.read(Path(asked["tokenizer"])).encode()
        asked["tokenizer"] = hashlib.sha256(content).hexdigest()
    inputs = {str(file): [size, file.stat().st_mtime_ns] for file, size in found}
    plan = {**asked, "inputs": inputs}
    path = options.output / WORK / _PLAN
    before = files.read_object(path) if path.exists() else {}
    if before == plan:
        return
    if not begun:
        # A tokenizer that was trained for another plan goes first.
        (options.output / TOKENIZER).unlink(missing_ok=True)
        files.write_json(path, plan)
        return
    name = next(name for name, value in plan.items() if before.get(name) != value)
    which = f"--{name}"
    if name == "inputs":
        old = before.get(name, {})
        changed = [f for f in old | inputs if old.get(f) != inputs.get(f)]
        which = f"--input ({len(changed)} files, such as {min(changed)})"
    raise UserError(
        f"--output={options.output} was begun with another {which}; delete that folder,"
        " or name another"
    )


def _tokenizer(
    options: Options, found: Sequence[tuple[Path, int]]
) -> vocabulary.Vocabulary:
    """The tokenizer, trained if it is to be, stored beside the shards."""
    if options.tokenizer == "byte":
        return vocabulary.Bytes()
    strict = options.errors == "strict"
    stored = options.output / TOKENIZER
    if not stored.exists():
        if size := vocabulary.asked_size(options.tokenizer):
            trained = vocabulary.train_bpe(_sample(options, found, strict), size)
            files.write_text(stored, trained.to_str())
        else:
            files.write_text(stored, vocabulary.read(Path(options.tokenizer)))
    return vocabulary.Library(vocabulary.load(stored), options.end_of_text, strict)


def _sample(
    options: Options, found: Sequence[tuple[Path, int]], strict: bool
) -> Iterator[str]:
    """Every n-th piece of the input, with the n that leaves about enough."""
    each = max(1, -(-sum(size for _, size in found) // options.train_bytes))
    pieces = itertools.chain.from_iterable(
        documents.read(file, 0, options.field) for file, _ in found
    )
    for piece in itertools.islice(pieces, 0, None, each):
        yield vocabulary.decoded(piece, strict)


def _batches(
    pieces: Iterable[tuple[int, Piece]],
) -> Iterator[list[tuple[int, Piece]]]:
    batch, size = [], 0
    for number, piece in pieces:
        batch.append((number, piece))
        size += len(piece.text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _meta(
    options: Options,
    tokenizer: vocabulary.Vocabulary,
    records: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    total = {
        name: sum(record[name] for record in records)
        for name in ("tokens", "bytes", "documents")
    }
    return {
        "tokenizer": "byte" if options.tokenizer == "byte" else TOKENIZER,
        "vocabulary": tokenizer.size,
        "end_of_text": tokenizer.end_of_text,
        "dtype": dtype_of(tokenizer).name,
        **total,
        "bytes_per_token": total["bytes"] / total["tokens"],
        "shards": {
            record["name"]: {name: record[name] for name in total} for record in records
        },
    }
