"""Normalization of rows on a GPU (Hopper)."""

from gnomon.kernels.engine.gpu.rows import map_rows
from gnomon.kernels.normalization.passes import passes

forward, backward = passes(map_rows)
