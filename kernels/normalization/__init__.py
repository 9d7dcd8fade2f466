"""Normalization over the last axis: RMSNorm, and LayerNorm, which centers first.

The public functions are :func:`gnomon.kernels.rms_norm.rms_norm` and
:func:`gnomon.kernels.layer_norm.layer_norm`.
"""
