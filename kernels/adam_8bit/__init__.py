"""AdamW with its moments in eight bits between steps, one leaf in one pass."""

from gnomon.kernels.adam.program import Moved
from gnomon.kernels.adam_8bit.api import explain, step

__all__ = ("Moved", "explain", "step")
