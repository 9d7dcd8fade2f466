"""Byte-level language modelling: a text cut into windows."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import corpus
from gnomon.experiments.data.dataset import Dataset


def windows(text: np.ndarray, length: int) -> np.ndarray:
    """Cuts a text into windows of inputs with their targets.

    Window i holds the bytes ``[i * length, i * length + length]``, both ends
    included: ``length`` inputs, and the targets, which are the inputs shifted by one.
    Each byte but the first is a target exactly once, up to a remainder at the end.

    Args:
      text: uint8 [bytes], more than ``length`` of them.
      length: inputs a window has.

    Returns:
      uint8 [(bytes - 1) // length, length + 1], a view that shares ``text``'s memory.

    Example:
      >>> windows(np.frombuffer(b"abcdefgh", np.uint8), 3).tobytes()
      b'abcddefg'
    """
    return sliding_window_view(text, length + 1)[::length]


def stdlib_text(
    length: int = 64,
    train_bytes: int | None = None,
    validation_bytes: int | None = None,
) -> Dataset:
    """Loads the running interpreter's standard library as windows of bytes.

    About 11 million bytes of Python, split into train and validation by file. The
    vocabulary is 256.

    Args:
      length: inputs a window has.
      train_bytes: at most so many bytes of training text; all by default.
      validation_bytes: at most so many bytes of validation text; all by default.

    Returns:
      A `Dataset` of ``tokens``, uint8 [n, length + 1]; its unit is the byte.

    Raises:
      ConfigError: a field that is not a positive integer, or a text too short for
        one window.
    """
    _require_positive(length, "length")
    text = corpus.read_text(corpus.standard_library())
    return Dataset(
        train={"tokens": _cut(text.train, train_bytes, length, "train_bytes")},
        validation={
            "tokens": _cut(
                text.validation, validation_bytes, length, "validation_bytes"
            )
        },
        fingerprint=text.fingerprint,
        unit="byte",
    )


def _cut(text: np.ndarray, cap: int | None, length: int, field: str) -> np.ndarray:
    if cap is not None:
        _require_positive(cap, field)
        text = text[:cap]
    if len(text) <= length:
        raise ConfigError(
            f"config.data.length: a window of {length} needs {length + 1} bytes, but"
            f" config.data.{field} leaves {len(text)}"
        )
    return windows(text, length)


def _require_positive(value: int, field: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"config.data.{field}: {value!r} must be a positive whole number"
        )
