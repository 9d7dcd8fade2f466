"""Language modelling on a folder of token shards, which stay on disk."""

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.experiments.config.resolve import ConfigError, did_you_mean
from gnomon.experiments.data import storage
from gnomon.experiments.data.dataset import Dataset
from gnomon.experiments.data.shards import DTYPES, Shard, open_shards
from gnomon.experiments.data.windows import Span, Windows, check
from gnomon.experiments.records import files

META = "meta.json"
"""What a folder of shards says of itself."""
# What is hashed of a shard, and looked at for tokens out of range.
_SAMPLES, _SAMPLE = 8, 2048


def tokens(
    path: str,
    length: int = 1024,
    validation_shards: str | None = None,
    validation_fraction: float | None = None,
    vocabulary: int | None = None,
    dtype: str | None = None,
    bytes_per_token: float | None = None,
) -> Dataset:
    """Opens a folder of token shards as windows, none of which is read yet.

    ``python -m gnomon.experiments.data tokenize`` writes such folders, and
    `gnomon.experiments.data.shards.open_shards` says what else a shard may be. A batch
    reads its own windows and nothing more, so that the memory of a run does not depend
    on the size of the folder. `gnomon.experiments.data.windows.Windows` says where
    windows lie.

    ``meta.json`` in the folder may hold ``vocabulary``, ``dtype`` and
    ``bytes_per_token``, whose places the arguments take, and ``shards``, which are
    compared with those found.

    Args:
      path: the folder.
      length: inputs a window has.
      validation_shards: a pattern, such as ``"*val*"``, of the names of the shards to
        validate on; the others are trained on.
      validation_fraction: the share of each shard, at its end, to validate on, where
        no shards are named; a hundredth by default.
      vocabulary: how many tokens there are.
      dtype: of raw ``.bin`` files and ArrayRecord, ``"uint8"``, ``"uint16"`` or
        ``"uint32"``, little-endian.
      bytes_per_token: of the text, for losses in bits a byte. By default that of the
        validation shards in ``meta.json``, or of all shards where a fraction of each
        is held out; unknown without.

    Returns:
      A `Dataset` of ``tokens``, [n, length + 1], read when indexed; its unit is the
      token. The fingerprint is that of names, types, sizes and 8 spans of 2,048 tokens
      of each shard, evenly spread: a change elsewhere in a file is not seen.

    Raises:
      ConfigError: names the field or the shard, and the fix.
    """
    _positive(length, "length")
    folder = Path(path).expanduser().absolute()
    meta = _meta(folder)
    vocabulary = meta.get("vocabulary") if vocabulary is None else vocabulary
    stated = meta.get("dtype") if dtype is None else dtype
    shards = open_shards(folder, None if stated is None else _dtype(stated))
    if vocabulary is None:
        raise ConfigError(
            "config.data.vocabulary: not known; say how many tokens there are, here or"
            f" in {folder / META} (which tokenize writes last, when it is done)"
        )
    _positive(vocabulary, "vocabulary")
    listed = meta.get("shards")
    if listed is not None:
        _compare(folder, listed, shards)
    parts = _split(shards, validation_shards, validation_fraction)
    splits = {}
    for split, spans in parts.items():
        splits[split] = Windows(spans, length, vocabulary)
        if not len(splits[split]):
            longest = max(span.stop - span.start for span in spans)
            raise ConfigError(
                f"config.data.length: a window of {length} needs {length + 1} tokens of"
                f" one shard, and the longest {split} part of a shard has {longest}"
            )
    if bytes_per_token is None:
        bytes_per_token = meta.get("bytes_per_token")
        if listed is not None and validation_shards is not None:
            named = [listed[span.shard.path.name] for span in parts["validation"]]
            bytes_per_token = sum(n["bytes"] for n in named) / sum(
                n["tokens"] for n in named
            )
    if bytes_per_token is not None and not (
        isinstance(bytes_per_token, int | float) and bytes_per_token > 0
    ):
        raise ConfigError(
            f"config.data.bytes_per_token: {bytes_per_token!r} must be above 0"
        )
    return Dataset(
        train={"tokens": splits["train"]},
        validation={"tokens": splits["validation"]},
        fingerprint=storage.sha256(_sampled(shards, vocabulary)),
        unit="token",
        vocabulary=vocabulary,
        bytes_per_unit=bytes_per_token,
    )


def _meta(folder: Path) -> dict[str, Any]:
    try:
        return files.read_object(folder / META)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _dtype(name: Any) -> np.dtype:
    known = {dtype.name: dtype for dtype in DTYPES.values()}
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise ConfigError(f"config.data.dtype: {name!r} is not one of these{hint}")
    return known[name]


def _positive(value: Any, field: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"config.data.{field}: {value!r} must be a positive whole number"
        )


def _compare(folder: Path, listed: Any, shards: Sequence[Shard]) -> None:
    """Refuses shards that are not those that ``meta.json`` tells of."""
    found = {shard.path.name: shard.count for shard in shards}
    try:
        told = {name: about["tokens"] for name, about in listed.items()}
        sum(about["bytes"] for about in listed.values())
    except (AttributeError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{folder / META}: its shards must each have tokens and bytes"
        ) from error
    for name in sorted(found.keys() | told.keys()):
        if found.get(name) != told.get(name):
            has, should = (
                "is missing" if count is None else f"of {count} tokens"
                for count in (found.get(name), told.get(name))
            )
            raise ConfigError(
                f"{folder / name}: {has}, by {META} {should}; copy the folder anew, or"
                " tokenize again"
            )


def _split(
    shards: Sequence[Shard], pattern: str | None, fraction: float | None
) -> dict[str, list[Span]]:
    if pattern is not None and fraction is not None:
        raise ConfigError(
            "config.data: validation_shards and validation_fraction exclude each other"
        )
    if pattern is None:
        fraction = 0.01 if fraction is None else fraction
        if not 0 < fraction < 1:
            raise ConfigError(
                f"config.data.validation_fraction: {fraction!r} must be between 0 and 1"
            )
        cuts = [shard.count - round(shard.count * fraction) for shard in shards]
        both = list(zip(shards, cuts, strict=True))
        return {
            "train": [Span(shard, 0, cut) for shard, cut in both],
            "validation": [Span(shard, cut, shard.count) for shard, cut in both],
        }
    parts: dict[str, list[Span]] = {"train": [], "validation": []}
    for shard in shards:
        held = fnmatch.fnmatchcase(shard.path.name, pattern)
        split = "validation" if held else "train"
        parts[split].append(Span(shard, 0, shard.count))
    for split, spans in parts.items():
        if not spans:
            names = ", ".join(shard.path.name for shard in shards[:4])
            raise ConfigError(
                f"config.data.validation_shards={pattern!r}: leaves no shard for"
                f" {split}; the {len(shards)} shards are {names}, ..."
            )
    return parts


def _sampled(shards: Sequence[Shard], vocabulary: int) -> Iterator[bytes]:
    """What a fingerprint covers, each sample checked against the vocabulary."""
    for shard in shards:
        yield f"{shard.path.name} {shard.dtype.name} {shard.count}".encode()
        starts = np.linspace(0, max(0, shard.count - _SAMPLE), _SAMPLES).astype(int)
        for start in np.unique(starts).tolist():
            sample = shard.read(start, min(start + _SAMPLE, shard.count))
            check(sample, vocabulary, shard)
            yield sample.tobytes()
