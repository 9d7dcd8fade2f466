"""A step of fixed norm on a GPU (Hopper): kernels of sums, one that updates in place.

They read two arrays twice and write one; by an angle or along the tangent there is a
second kernel of sums, which reads them again only where parts of a step nearly cancel.
Rows of at most 2048 numbers, which fit the registers of a block, are read once by the
last kernel alone.
"""

import functools

from gnomon.kernels.engine.gpu import runner
from gnomon.kernels.fixed_norm import _leaf

step = functools.partial(_leaf.step, runner.step)
