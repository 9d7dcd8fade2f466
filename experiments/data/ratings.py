"""MovieLens-100k: ratings of films, read from an installed package."""

import importlib.util
from pathlib import Path

import numpy as np

from gnomon.experiments.data import storage
from gnomon.experiments.data.dataset import Dataset

FILE = Path("dataset_example/ml-100k/ml-100k.inter")
FIX = "python -m pip install --no-deps recbole"


def movielens() -> Dataset:
    """Loads 100,000 ratings of 1,682 films by 943 people; every tenth is held out.

    The data may be used for research and not passed on (GroupLens), so it is read
    from where the package recbole has put it and never stored. recbole itself is not
    imported and its dependencies are not needed.

    Returns:
      A `Dataset` of ``pair``, int32 [n, 2], person and film counted from 0, and
      ``rating``, float32 [n], 1 to 5; its unit is the example. Ratings are in order
      of time within each split, and every tenth in time is validation.

    Raises:
      FileNotFoundError: recbole is not installed; the message says how to.

    References:
      Harper, F. M., Konstan, J. A. (2015). The MovieLens Datasets: History and
      Context. ACM TiiS 5(4).
    """
    spec = importlib.util.find_spec("recbole")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = next((Path(f) / FILE for f in folders if (Path(f) / FILE).exists()), None)
    if path is None:
        raise FileNotFoundError(
            f"config.data.name='movielens': its data comes with the package recbole,"
            f" which is not installed; run {FIX}"
        )
    table = np.loadtxt(path, skiprows=1, dtype=np.int64)
    table = table[np.lexsort((table[:, 1], table[:, 0], table[:, 3]))]
    held_out = np.arange(len(table)) % 10 == 9
    splits = {
        name: {
            "pair": table[part, :2].astype(np.int32) - 1,
            "rating": table[part, 2].astype(np.float32),
        }
        for name, part in (("train", ~held_out), ("validation", held_out))
    }
    found = storage.fingerprint(splits.values())
    return Dataset(splits["train"], splits["validation"], found, unit="example")
