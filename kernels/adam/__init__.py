"""Adam with decoupled weight decay (AdamW), one leaf in one pass."""

from gnomon.kernels.adam.api import explain, step
from gnomon.kernels.adam.program import Moved

__all__ = ("Moved", "explain", "step")
