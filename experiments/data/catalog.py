"""Any data set of the TensorFlow Datasets catalog, read without TensorFlow."""

import difflib
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import storage
from gnomon.experiments.data.dataset import Dataset


def catalog(dataset: str, train: str = "train", validation: str = "test") -> Dataset:
    """Loads a data set by its tfds name, as in ``data.name='tfds/cifar10'``.

    It is looked for where tfds keeps its data (``$TFDS_DATA_DIR``, else
    ``~/tensorflow_datasets``), as array_record, and fetched when it is not there.
    Each numeric feature becomes an array, 64-bit ones narrowed to 32; features that
    are text or nested are left out.

    Args:
      dataset: the name, with config and version if wanted: ``"name/config:1.0.0"``.
      train: the split to train on, in tfds notation, such as ``"train[:90%]"``.
      validation: the split to validate on.

    Returns:
      A `Dataset`; its unit is the example, its fingerprint that of the two splits.

    Raises:
      ConfigError: an unknown name or split, or features that make no arrays.
      FileNotFoundError: the data is not on disk and cannot be fetched; the message
        holds the command that prepares it.
    """
    builder = _prepared(dataset)
    arrays = {
        "train": _arrays(builder, "train", train),
        "validation": _arrays(builder, "validation", validation),
    }
    found = storage.fingerprint(arrays.values())
    return Dataset(arrays["train"], arrays["validation"], found, unit="example")


def _prepared(dataset: str) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is on disk, fetched if need be."""
    folder = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    folder = folder.expanduser().absolute()
    command = f"tfds build {dataset} --data_dir={folder} --file_format=array_record"
    try:
        builder = tfds.builder(dataset, data_dir=folder, file_format="array_record")
        if not builder.data_path.exists():
            # Said beforehand, because tfds retries a dead network for minutes.
            logging.warning(
                "tfds/%s is not in %s: trying to fetch it, which takes minutes to fail"
                " without a network. To prepare it elsewhere: %s",
                dataset,
                folder,
                command,
            )
            builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError:
        # The error itself lists the whole catalog.
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(dataset, known, n=1)
        hint = f"; did you mean 'tfds/{close[0]}'?" if close else ""
        raise ConfigError(
            f"config.data.name: tfds knows no {dataset!r}, and none lies in"
            f" {folder}{hint}"
        ) from None
    # A builder fails in its own ways: no network, no TensorFlow, files that only a
    # person can fetch, records in a format without random access.
    except Exception as error:
        raise FileNotFoundError(
            f"tfds/{dataset} is not in {folder} as array_record and could not be"
            f" fetched ({type(error).__name__}: {error}). Prepare it with\n"
            f"  {command}\n"
            "where there is a network and TensorFlow (`pip install tensorflow"
            " tensorflow-datasets`, in an environment of its own: reading the result"
            " needs neither), and copy the folder here if that is another machine"
        ) from error
    return builder


def _arrays(
    builder: tfds.core.DatasetBuilder, field: str, split: str
) -> dict[str, np.ndarray]:
    """Reads every example of a split once, into one array a numeric feature."""
    try:
        source = builder.as_data_source(split=split)
    except ValueError as error:
        raise ConfigError(
            f"config.data.{field}: tfds/{builder.name} has no split {split!r};"
            f" it has {', '.join(builder.info.splits)}"
        ) from error
    first = {key: np.asarray(value) for key, value in source[0].items()}
    numeric = {key: value for key, value in first.items() if value.dtype.kind in "biuf"}
    if not numeric:
        raise ConfigError(
            f"config.data.name: tfds/{builder.name} has no numeric feature (it has"
            f" {', '.join(first)}); give the dotted path of a function of yours that"
            " returns a Dataset"
        )
    # The declared types: tfds gives every integer scalar as an int64.
    declared = {key: builder.info.features[key].np_dtype for key in numeric}
    arrays = {
        key: np.empty((len(source), *value.shape), _narrow(declared[key]))
        for key, value in numeric.items()
    }
    for row, record in enumerate(source):
        for key, array in arrays.items():
            shape = np.shape(record[key])
            if shape != array.shape[1:]:
                raise ConfigError(
                    f"config.data.name: the feature {key!r} of tfds/{builder.name}"
                    f" varies in shape ({array.shape[1:]}, then {shape}); give the"
                    " dotted path of a function of yours that returns a Dataset"
                )
            array[row] = record[key]
    return arrays


def _narrow(dtype: np.dtype) -> np.dtype:
    """Halves 64-bit types, as JAX does by default."""
    dtype = np.dtype(dtype)
    return np.dtype(f"{dtype.kind}4") if dtype.itemsize == 8 else dtype
