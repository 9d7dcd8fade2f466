"""A step, and layers that have grown too wide set back to a target deviation."""

from gnomon.kernels.variance.api import explain, step

__all__ = ("explain", "step")
