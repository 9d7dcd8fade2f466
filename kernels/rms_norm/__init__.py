"""RMSNorm: definition, TPU and GPU kernels, and the choice between them."""

from gnomon.kernels.rms_norm.api import explain, rms_norm

__all__ = ("explain", "rms_norm")
