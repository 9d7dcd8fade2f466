"""What a data set is, and how a config's ``data`` section names one."""

import functools
import json
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from gnomon.experiments.config.resolve import (
    ConfigError,
    did_you_mean,
    resolve,
    signature_errors,
)
from gnomon.experiments.data.order import Order

NAMES = {
    "stdlib_text": "gnomon.experiments.data.text.stdlib_text",
    "digits": "gnomon.experiments.data.digits.digits",
    "wine": "gnomon.experiments.data.wine.wine",
    "movielens": "gnomon.experiments.data.ratings.movielens",
    "stdlib_tokens": "gnomon.experiments.data.library_tokens.stdlib_tokens",
    "tokens": "gnomon.experiments.data.tokens.tokens",
    "tfds": "gnomon.experiments.data.catalog.catalog",
}
"""The short names of the data sets; any other dotted path works as well."""


class Examples(Protocol):
    """What a run asks of an array of examples, which need not be in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of examples, then the shape of one."""

    @property
    def dtype(self) -> np.dtype:
        """How a number is stored."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray:
        """Returns the examples at the indices, int64 [batch], as a new array."""


class Dataset(NamedTuple):
    """Arrays of examples, and what identifies them.

    Attributes:
      train: arrays whose leading dimension counts the examples. Text: ``tokens``,
        unsigned [n, T + 1]. Images: ``image``, uint8 [n, H, W, C], and ``label``,
        int32 [n]. They are NumPy arrays, or anything else that has what `Examples`
        lists.
      validation: the same arrays for examples that training never sees.
      fingerprint: hex SHA-256 of the stored data, before any cap or windowing.
      unit: what one unit of compute is, ``"byte"``, ``"token"`` or ``"example"``.
      vocabulary: how many tokens there are, where that is known.
      bytes_per_unit: bytes of text that a unit stands for on average, where that is
        known; a task's metric ``bits`` is then also given a byte.
    """

    train: Mapping[str, Examples]
    validation: Mapping[str, Examples]
    fingerprint: str
    unit: str
    vocabulary: int | None = None
    bytes_per_unit: float | None = None

    def order(self, batch: int, seed: int) -> Order:
        """The order in which a run of a seed sees the training examples."""
        arrays = list(self.train.values())
        stored = all(isinstance(array, np.ndarray) for array in arrays)
        return Order(len(arrays[0]), batch, seed, stored=stored)


def load(data: Mapping) -> Dataset:
    """Loads the data set that a config's ``data`` section describes.

    The first call stores the data set on disk (``storage.data_dir`` says where),
    later ones read it; within a process the same section gives the same, read-only
    arrays.

    Args:
      data: ``{"name": ..., **fields}``. The name is ``"stdlib_text"``,
        ``"stdlib_tokens"``, ``"digits"``, ``"wine"``, ``"movielens"``, ``"tokens"``,
        ``"tfds/<any tfds name>"``, or the dotted path of a function of yours that takes
        the fields as keywords and returns a `Dataset`. Fields are values that JSON can
        hold.

    Returns:
      The `Dataset`.

    Raises:
      ConfigError: an unknown name or field, or one whose value is no use.
      FileNotFoundError: the data is not here and cannot be fetched.

    Example:
      >>> data = load({"name": "stdlib_text", "length": 64, "train_bytes": 6401})
      >>> data.train["tokens"].shape, data.train["tokens"].dtype, data.unit
      ((100, 65), dtype('uint8'), 'byte')
    """
    try:
        section = json.dumps(dict(data), sort_keys=True, default=dict)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.data: values must be JSON's; {error}") from error
    return _load(section)


@functools.cache
def _load(section: str) -> Dataset:
    fields = json.loads(section)
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"config.data.name: missing; give one of {', '.join(NAMES)}, or the dotted"
            " path of a function that returns a Dataset"
        )
    # "tfds/mnist" is short for {"name": "tfds", "dataset": "mnist"}.
    head, _, rest = name.partition("/")
    if rest:
        fields["dataset"] = rest
    path = NAMES.get(head, head)
    if "." not in path:
        hint = did_you_mean(name, NAMES)
        raise ConfigError(f"config.data.name: there is no data set {name!r}{hint}")
    loader = resolve(path, "data.name")
    if problem := signature_errors(loader, fields, "data"):
        raise ConfigError(problem)
    return _checked(loader(**fields), path)


def _checked(dataset: Dataset, path: str) -> Dataset:
    """Refuses what training would trip over later, and freezes the arrays."""
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"config.data.name: {path} returned a {type(dataset).__name__};"
            " it must return a gnomon.experiments.data.Dataset"
        )
    for split in ("train", "validation"):
        arrays = getattr(dataset, split)
        counts = {key: len(array) for key, array in arrays.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise ConfigError(
                f"config.data: the {split} arrays of {path} must hold the same number"
                f" of examples, at least one; they hold {counts}"
            )
        for array in arrays.values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
    return dataset
