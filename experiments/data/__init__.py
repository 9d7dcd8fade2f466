"""Data: stored once by tfds builders, read once into numpy, ordered by grain.

``load(config.data)`` gives the arrays and ``Order`` the resumable order in which a
run sees them. ``python -m gnomon.experiments.data`` stores the data sets of this
package ahead of time, and ``tokenize`` behind it makes shards of tokens, which stay on
disk when a run reads them. Nothing here needs TensorFlow, and importing this package
loads neither tfds nor grain: both wait until they are used.
"""

from gnomon.experiments.data.dataset import Dataset, Examples, load
from gnomon.experiments.data.order import Order

__all__ = ["Dataset", "Examples", "Order", "load"]
