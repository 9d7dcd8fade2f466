"""A step that leaves the norm of every unit, or layer, what it was."""

from gnomon.kernels.fixed_norm.api import explain, step

__all__ = ("explain", "step")
