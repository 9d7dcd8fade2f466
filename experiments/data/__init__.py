"""Data: stored once by tfds builders, read once into numpy, ordered by grain.

``load(config.data)`` gives the arrays and ``Order`` the resumable order in which a
run sees them. ``python -m gnomon.experiments.data`` stores the data sets of this
package ahead of time. Nothing here needs TensorFlow, and importing this package loads
neither tfds nor grain: both wait until they are used.
"""

from gnomon.experiments.data.dataset import Dataset, load
from gnomon.experiments.data.order import Order

__all__ = ["Dataset", "Order", "load"]
