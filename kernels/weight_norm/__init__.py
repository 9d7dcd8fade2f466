"""Weight normalization: definition, TPU kernels, and the choice between them."""

from gnomon.kernels.weight_norm.api import explain, weight_norm

__all__ = ("explain", "weight_norm")
