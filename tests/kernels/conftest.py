"""What the tests of kernels share."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax.experimental import pallas as pl


@pytest.fixture
def interpreted(monkeypatch):
    """Runs Pallas kernels on CPU, with NaN in what a ragged block reads past the edge.

    The simulator of a TPU, ``pltpu.InterpretParams``, cannot alias an output to an
    input whose edge is ragged. Gives a list to which every call is added.
    """
    calls = []
    kernel = pl.pallas_call

    def interpret(*args, **kwargs):
        calls.append(kwargs.get("name"))
        return kernel(*args, **kwargs | {"interpret": True})

    monkeypatch.setattr(pl, "pallas_call", interpret)
    return calls


@pytest.fixture
def tpu_text() -> Callable[..., str]:
    """``tpu_text(f, *structs)`` is the program of ``f`` lowered for a TPU."""

    def lower(f, *structs) -> str:
        traced = jax.jit(f).trace(*structs)
        return traced.lower(lowering_platforms=("tpu",)).as_text()

    return lower


@pytest.fixture
def cuda_text() -> Callable[..., str]:
    """``cuda_text(f, *structs)`` is the program of ``f`` lowered for an H100."""
    from jax.sharding import AbstractDevice, AbstractMesh

    def lower(f, *structs) -> str:
        h100 = AbstractDevice("NVIDIA H100 80GB HBM3", 132, "cuda")
        mesh = AbstractMesh((), (), abstract_device=h100)
        with jax.sharding.use_abstract_mesh(mesh):
            traced = jax.jit(f).trace(*structs)
            return traced.lower(lowering_platforms=("cuda",)).as_text()

    return lower


@pytest.fixture
def simulated(monkeypatch):
    """Simulates a GPU, with NaN in what was never written.

    Gives a list to which every call is added.
    """
    from jax.experimental.pallas import mosaic_gpu as plgpu

    simulator = plgpu.InterpretGPUParams(uninitialized_memory="nan")
    kernel = plgpu.kernel
    calls = []

    def simulate(*args, interpret=None, **kwargs):
        calls.append(kwargs.get("kernel_name"))
        return kernel(*args, interpret=simulator, **kwargs)

    monkeypatch.setattr(plgpu, "kernel", simulate)
    return calls


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """``assert_close(got, want, rtol)``, relative to the largest number of ``want``."""

    def check(got, want, rtol):
        got, want = (np.asarray(x, np.float64) for x in (got, want))
        assert got.shape == want.shape
        scale = np.abs(want).max(initial=0.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * scale)

    return check
