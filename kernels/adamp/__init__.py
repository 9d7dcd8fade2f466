"""AdamP: the test of every unit, the projection, the decay and the step."""

from gnomon.kernels.adam.program import Moved
from gnomon.kernels.adamp.api import explain, step

__all__ = ("Moved", "explain", "step")
