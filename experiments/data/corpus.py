"""A corpus of source files: one record a file, split by file."""

import dataclasses
import functools
import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from gnomon.experiments.data import storage

# Tests repeat themselves more than the library does, and installed packages differ
# from machine to machine.
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
# Chosen so that 7 to 10 % of the bytes are validation for every Python from 3.11 on.
_TRAIN = 0.93


class Text(NamedTuple):
    """A corpus as contiguous bytes, its files separated by a zero byte.

    Attributes:
      train: uint8 [bytes].
      validation: uint8 [bytes].
      fingerprint: hex SHA-256 over path and content of every file, sorted by path.
    """

    train: np.ndarray
    validation: np.ndarray
    fingerprint: str


def standard_library() -> Path:
    """Returns the folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(root: Path) -> dict[str, bytes]:
    """Reads the ``.py`` files below a folder, test folders and packages left out.

    Args:
      root: the folder.

    Returns:
      The content by path relative to ``root`` with ``/`` between folders, sorted by
      path.

    Raises:
      FileNotFoundError: there is none.
    """
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    if not found:
        raise FileNotFoundError(
            f"{root} holds no .py files (a zipped standard library has none);"
            " choose another config.data.name"
        )
    return dict(sorted(found.items()))


def fingerprint(contents: Mapping[str, bytes]) -> str:
    """Hashes the paths and contents of a corpus, in the order of the paths."""
    return storage.sha256(
        piece
        for path, content in sorted(contents.items())
        for piece in (path.encode(), content)
    )


def rank(path: str) -> float:
    """Returns a file's place in [0, 1): a hash of its path, the same everywhere.

    The files with the highest places are the validation split, and a split lists its
    files from the highest place down: a cap on the bytes then takes a random sample
    of the library, not the letter a, and a file keeps its split when others come and
    go.

    >>> round(rank("json/decoder.py"), 4)
    0.2312
    """
    digest = hashlib.sha256(path.encode()).digest()
    # 53 bits, all of which a double holds.
    return int.from_bytes(digest[:8], "big") // 2**11 / 2**53


@dataclasses.dataclass(eq=False)
class CorpusConfig(tfds.core.BuilderConfig):
    """Which corpus: the folder, and the fingerprint its files had when read."""

    root: str = ""
    fingerprint: str = ""


class StdlibText(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The standard library of a Python, as bytes.

    The text is that of the Python Software Foundation and its contributors, under
    the PSF License (PSF-2.0). It is always there, needs no download, and differs
    between Python versions, so its fingerprint is part of the folder's name.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, so there are no checksums to look for.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The .py files of a Python standard library, without tests.",
            features=tfds.features.FeaturesDict(
                {"path": tfds.features.Text(), "content": tfds.features.Text()}
            ),
            license="PSF-2.0",
            metadata=tfds.core.MetadataDict(
                fingerprint=self.builder_config.fingerprint
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterable]:
        contents = python_files(Path(self.builder_config.root))
        if fingerprint(contents) != self.builder_config.fingerprint:
            raise RuntimeError(
                f"{self.builder_config.root} changed while it was read; run again"
            )
        paths = sorted(contents, key=rank, reverse=True)
        train = [path for path in paths if rank(path) < _TRAIN]
        validation = [path for path in paths if rank(path) >= _TRAIN]
        return {
            "train": self._generate_examples(train, contents),
            "validation": self._generate_examples(validation, contents),
        }

    def _generate_examples(
        self, paths: list[str], contents: Mapping[str, bytes]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, path in enumerate(paths):
            yield key, {"path": path, "content": contents[path]}


def stored_corpus(root: Path) -> tfds.core.DatasetBuilder:
    """Stores the Python files below ``root`` unless they are stored already.

    Args:
      root: the folder.

    Returns:
      The builder of the stored corpus, for reading.
    """
    found = fingerprint(python_files(root))
    config = CorpusConfig(
        name=f"py{sysconfig.get_python_version()}-{found[:16]}",
        root=str(root),
        fingerprint=found,
    )
    folder = storage.data_dir()
    return storage.stored(lambda: StdlibText(config=config, data_dir=folder))


@functools.cache
def read_text(root: Path) -> Text:
    """Reads a corpus into memory, storing it first when it is not.

    Args:
      root: the folder of the files.

    Returns:
      The `Text`, the same object for the same folder.

    Raises:
      ValueError: the stored corpus is damaged.
    """
    builder = stored_corpus(root)
    contents: dict[str, bytes] = {}
    streams = {}
    for split in ("train", "validation"):
        records = list(builder.as_data_source(split=split))
        streams[split] = np.frombuffer(
            b"\0".join(record["content"] for record in records), np.uint8
        )
        contents |= {r["path"].decode(): r["content"] for r in records}
    found = fingerprint(contents)
    storage.verify(builder, found)
    return Text(**streams, fingerprint=found)
