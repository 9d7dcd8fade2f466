"""AdamP with its moments in eight bits between steps."""

from gnomon.kernels.adam_8bit.api import explain
from gnomon.kernels.adam_8bit.reference import Moved
from gnomon.kernels.adamp_8bit.api import step

__all__ = ("Moved", "explain", "step")
