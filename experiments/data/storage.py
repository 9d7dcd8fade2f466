"""Where data sets lie on disk, and how one is stored exactly once."""

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.records.locks import lock

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def data_dir() -> Path:
    """Returns the folder of the stored data sets.

    It is ``$GNOMON_DATA_DIR`` when set, else ``gnomon/data`` in the user's cache
    (``$XDG_CACHE_HOME`` or ``~/.cache``).
    """
    if given := os.environ.get("GNOMON_DATA_DIR"):
        return Path(given).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "gnomon" / "data"


def stored(
    make_builder: Callable[[], "tfds.core.DatasetBuilder"],
) -> "tfds.core.DatasetBuilder":
    """Stores a builder's records unless they are stored, and returns it for reading.

    The records are written to a temporary folder that is renamed at the end, so the
    data set is whole or absent. Of several processes that ask at once, one writes
    and the others wait for it. What a killed writer left behind is removed by the
    next.

    Args:
      make_builder: makes the builder. It is called anew once the data are seen to be
        there, because a builder looks at the disk when it is made.

    Returns:
      The builder of a data set that is on disk.
    """
    import tensorflow_datasets as tfds

    with _quiet():
        builder = make_builder()
        if builder.data_path.exists():
            return make_builder()
        # The lock ends with its process, so a killed writer keeps nobody waiting.
        with lock(data_dir() / f"{builder.name}.lock", blocking=True):
            if builder.data_path.exists():
                return make_builder()
            for leftover in Path(builder.data_dir).parent.glob("incomplete.*"):
                shutil.rmtree(leftover)
            builder.download_and_prepare(
                file_format="array_record",
                # Asking the cloud for a ready copy would only wait for a network.
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        return make_builder()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what tfds reports of a download that does not happen."""
    import tensorflow_datasets as tfds

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(True)
        logging.set_verbosity(verbosity)


def verify(builder: "tfds.core.DatasetBuilder", found: str) -> None:
    """Refuses stored records whose fingerprint is not the recorded one.

    Args:
      builder: of the stored data set, its metadata holding ``fingerprint``.
      found: the fingerprint of the records as read.

    Raises:
      ConfigError: they differ.
    """
    recorded = builder.info.metadata["fingerprint"]
    if found != recorded:
        raise ConfigError(
            f"{builder.data_dir} is damaged: its fingerprint is {found[:12]}, recorded"
            f" was {recorded[:12]}; remove that folder and run again"
        )


def sha256(pieces: Iterable[bytes]) -> str:
    """Hashes a sequence of byte strings, their boundaries included.

    >>> sha256([b"ab", b"c"]) == sha256([b"a", b"bc"])
    False
    """
    digest = hashlib.sha256()
    for piece in pieces:
        # The length first, so that no two sequences give the same stream.
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


def fingerprint(splits: Iterable[Mapping[str, np.ndarray]]) -> str:
    """Hashes named arrays: their names, types, shapes and contents.

    Args:
      splits: the arrays of each split.

    Returns:
      A hex SHA-256.
    """
    return sha256(
        piece
        for arrays in splits
        for name, array in sorted(arrays.items())
        for piece in (f"{name} {array.dtype} {array.shape}".encode(), array.tobytes())
    )
