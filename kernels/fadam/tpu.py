"""FAdam's step on TPU: one kernel, the sums over a layer included.

It reads four arrays and writes three where a layer fits the chip. Where it does not,
the gradient is read twice more, and the root and the parameter once.
"""

import functools

from gnomon.kernels.engine.tpu import runner
from gnomon.kernels.fadam import _leaf, reference

step = functools.partial(_leaf.step, runner.step, reference.power)
