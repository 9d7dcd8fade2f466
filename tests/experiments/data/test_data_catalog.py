"""Data sets of the tfds catalog: read by name, refused with the way out."""

import io
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import load


class ColourSquares(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Ten images of one colour each, stored as PNG, with a label and a text."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(4, 4, 3)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, 7),
            "test": self._generate_examples(7, 10),
        }

    def _generate_examples(self, start, stop):
        for key in range(start, stop):
            png = io.BytesIO()
            Image.new("RGB", (4, 4), (key, 2 * key, 3 * key)).save(png, "PNG")
            png.seek(0)
            yield key, {"id": f"square {key}", "image": png, "label": key}


class RaggedRows(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Rows of different lengths."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"row": tfds.features.Tensor(shape=(None,), dtype=np.float32)}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for key in (1, 2):
            yield key, {"row": np.ones(key, np.float32)}


@pytest.fixture
def catalog_folder(tmp_path, monkeypatch):
    """The folder of tfds, as its own environment variable gives it."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def store(builder_class, folder):
    builder = builder_class(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def test_stored_images_become_arrays(catalog_folder):
    store(ColourSquares, catalog_folder)
    data = load({"name": "tfds/colour_squares"})
    assert data.unit == "example"
    assert set(data.train) == {"image", "label"}
    assert data.train["label"].dtype == np.int32
    assert data.train["label"].tolist() == list(range(7))
    assert data.validation["label"].tolist() == [7, 8, 9]
    expected = np.broadcast_to([8, 16, 24], (4, 4, 3))
    np.testing.assert_array_equal(data.validation["image"][1], expected)
    assert data.validation["image"].dtype == np.uint8


def test_splits_are_the_configs_choice(catalog_folder):
    store(ColourSquares, catalog_folder)
    fields = {"name": "tfds/colour_squares", "train": "train[:5]"}
    data = load({**fields, "validation": "train[5:]"})
    assert data.train["label"].tolist() == [0, 1, 2, 3, 4]
    assert data.validation["label"].tolist() == [5, 6]
    with pytest.raises(ConfigError, match=r"config\.data\.validation.*train, test"):
        load({**fields, "validation": "holdout"})


def test_a_feature_of_varying_shape_is_refused(catalog_folder):
    store(RaggedRows, catalog_folder)
    with pytest.raises(ConfigError, match=r"'row' .* varies in shape \(\(1,\), then"):
        load({"name": "tfds/ragged_rows"})


def test_what_cannot_be_fetched_says_which_command_prepares_it(
    catalog_folder, monkeypatch
):
    def unreachable(*_, **__):
        raise ConnectionError("the network is unreachable")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unreachable)
    command = (
        f"tfds build cifar10 --data_dir={catalog_folder} --file_format=array_record"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(command)) as caught:
        load({"name": "tfds/cifar10"})
    assert "the network is unreachable" in str(caught.value)
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_records_without_random_access_are_refused(catalog_folder):
    # As another program may have left them: tfds wrote tfrecord for years.
    store(ColourSquares, catalog_folder)
    for file in catalog_folder.glob("colour_squares/*/*"):
        if file.name == "dataset_info.json":
            file.write_text(file.read_text().replace("array_record", "tfrecord"))
        elif "array_record" in file.name:
            file.rename(str(file).replace("array_record", "tfrecord"))
    with pytest.raises(FileNotFoundError, match="--file_format=array_record"):
        load({"name": "tfds/colour_squares", "train": "train[:1]"})


def test_an_unknown_name_is_refused(catalog_folder):
    with pytest.raises(ConfigError, match="did you mean 'tfds/cifar10'"):
        load({"name": "tfds/cifar1O"})
