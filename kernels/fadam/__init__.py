"""FAdam: two reductions over a layer and the step that waits for them."""

from gnomon.kernels.fadam.api import explain, step
from gnomon.kernels.fadam.program import Moved

__all__ = ("Moved", "explain", "step")
