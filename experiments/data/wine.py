"""Wine: 178 chemical analyses in their raw units, which differ by a thousand."""

import numpy as np

from gnomon.experiments.data import storage
from gnomon.experiments.data.dataset import Dataset
from gnomon.experiments.data.digits import stratify


def wine() -> Dataset:
    """Loads the wines: 13 measurements each, three cultivars, every fifth held out.

    The features are as measured (proline in hundreds, hue near one; standard
    deviations from 0.12 to 315), which makes a linear model on them badly
    conditioned. Aeberhard and Forina, UCI, CC BY 4.0, as the package mlxtend
    carries it.

    Returns:
      A `Dataset` of ``features``, float32 [n, 13], and ``label``, int32 [n]; its unit
      is the example.
    """
    from mlxtend.data import wine_data

    features, labels = wine_data()
    splits = {
        name: {"features": part["image"], "label": part["label"]}
        for name, part in stratify(
            features.astype(np.float32), labels.astype(np.int32)
        ).items()
    }
    found = storage.fingerprint(splits.values())
    return Dataset(splits["train"], splits["validation"], found, unit="example")
