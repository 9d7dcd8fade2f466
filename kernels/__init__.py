"""Fused operations for TPU and GPU, each beside its definition in plain JAX.

One folder an operation: ``reference`` is the definition, ``tpu`` is a Pallas kernel (as
is ``gpu`` where there is one), ``api`` picks one of them. A kernel is loaded when it is
first chosen.
"""

from gnomon.kernels.engine.choice import FASTER_THAN_XLA, Choice, Implementation
from gnomon.kernels.engine.sizes import Gpu, Tpu

__all__ = ("FASTER_THAN_XLA", "Choice", "Gpu", "Implementation", "Tpu")
