"""Normalization of rows on a TPU."""

from gnomon.kernels.engine.tpu.rows import map_rows
from gnomon.kernels.normalization.passes import passes

forward, backward = passes(map_rows)
