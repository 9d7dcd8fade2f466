"""Fused operations for TPU and GPU, each of one definition in plain JAX.

One folder an operation. A step of an optimizer is a ``program``: sums over units and an
update that waits for them, which ``engine`` runs by XLA on whole arrays and by Pallas
kernels on blocks. A norm is a ``reference`` with kernels for ``tpu`` and ``gpu`` beside
it. ``api`` picks what runs; a kernel is loaded when it is first chosen. ``cases`` lists
every operation on real shapes, for tests, benchmarks and compile checks.
"""

from gnomon.kernels.engine.choice import FASTER_THAN_XLA, Choice, Implementation
from gnomon.kernels.engine.sizes import Gpu, Tpu

__all__ = ("FASTER_THAN_XLA", "Choice", "Gpu", "Implementation", "Tpu")
