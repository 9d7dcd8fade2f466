"""The standard library as tokens of a BPE that is trained on it."""

import glob
import json
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import corpus, storage
from gnomon.experiments.data.dataset import Dataset
from gnomon.experiments.data.tokenization import Options, tokenize
from gnomon.experiments.data.tokens import META, tokens
from gnomon.experiments.records import files
from gnomon.experiments.records.locks import lock

LEAST = 257  # 256 bytes and an end of text


def stdlib_tokens(
    vocabulary: int = 4096, length: int = 128, validation_fraction: float = 0.07
) -> Dataset:
    """Loads the running interpreter's standard library as windows of BPE tokens.

    The first call trains the BPE and tokenizes, which takes some seconds
    (``pip install 'gnomon[tokens]'``); later ones open the shard. Files stand in the
    order of `corpus.rank`, which is that of nothing else, so that the end of the shard,
    the validation split, is a random sample of them. What is not UTF-8 becomes U+FFFD.

    Args:
      vocabulary: how many tokens, at least 257; token 0 ends a file.
      length: inputs a window has.
      validation_fraction: the share of the tokens to validate on.

    Returns:
      A `Dataset` as `gnomon.experiments.data.tokens.tokens` gives it.

    Raises:
      ConfigError: a field whose value is no use.
    """
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int):
        raise ConfigError(f"config.data.vocabulary: {vocabulary!r} is no whole number")
    if vocabulary < LEAST:
        raise ConfigError(
            f"config.data.vocabulary: {vocabulary} must be at least {LEAST}, the bytes"
            " and an end of text"
        )
    contents = corpus.python_files(corpus.standard_library())
    found = corpus.fingerprint(contents)
    name = f"py{sysconfig.get_python_version()}-{found[:16]}-bpe{vocabulary}"
    folder = storage.data_dir() / "stdlib_tokens" / name
    # Of several processes that ask at once, one writes and the others wait for it.
    with lock(folder.parent / f"{name}.lock", blocking=True):
        if not (folder / META).exists():
            _tokenize(contents, vocabulary, folder)
    return tokens(str(folder), length, validation_fraction=validation_fraction)


def _tokenize(contents: Mapping[str, bytes], vocabulary: int, folder: Path) -> None:
    text = folder.parent / f"{folder.name}.jsonl"
    files.write_text(
        text,
        "".join(
            json.dumps({"text": contents[path].decode(errors="replace")}) + "\n"
            for path in sorted(contents, key=corpus.rank)
        ),
    )
    tokenize(Options(glob.escape(str(text)), f"bpe:{vocabulary}", folder))
    text.unlink()
