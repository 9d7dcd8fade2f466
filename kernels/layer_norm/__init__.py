"""LayerNorm: definition, TPU and GPU kernels, and the choice between them."""

from gnomon.kernels.layer_norm.api import explain, layer_norm

__all__ = ("explain", "layer_norm")
