"""A step of fixed norm on a GPU (Hopper): a kernel of sums, one that updates in place.

They read two arrays twice and write one; rows of at most 2048 numbers, which fit the
registers of a block, are read once by the last kernel alone.
"""

import functools

from gnomon.kernels import _sweeps_gpu
from gnomon.kernels.fixed_norm import _leaf

step = functools.partial(_leaf.step, _sweeps_gpu.step)
