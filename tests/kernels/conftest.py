"""What the tests of kernels share."""

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax.experimental import pallas as pl


@pytest.fixture
def interpreted(monkeypatch):
    """Runs Pallas kernels on CPU, with NaN in what a ragged block reads past the edge.

    The simulator of a TPU, ``pltpu.InterpretParams``, cannot alias an output to an
    input whose edge is ragged.
    """
    monkeypatch.setattr(
        pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True)
    )


@pytest.fixture
def tpu_text() -> Callable[..., str]:
    """``tpu_text(f, *structs)`` is the program of ``f`` lowered for a TPU."""

    def lower(f, *structs) -> str:
        traced = jax.jit(f).trace(*structs)
        return traced.lower(lowering_platforms=("tpu",)).as_text()

    return lower


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """``assert_close(got, want, rtol)``, relative to the largest number of ``want``."""

    def check(got, want, rtol):
        got, want = (np.asarray(x, np.float64) for x in (got, want))
        assert got.shape == want.shape
        scale = np.abs(want).max(initial=0.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * scale)

    return check
