"""FAdam's step on TPU: one kernel, the sums over a layer included.

It reads four arrays and writes three where a layer fits the chip. Where it does not,
the gradient is read twice more, and the root and the parameter once.
"""

import functools

from gnomon.kernels import _sweeps_tpu
from gnomon.kernels.fadam import _leaf, reference

step = functools.partial(_leaf.step, _sweeps_tpu.step, reference.power)
