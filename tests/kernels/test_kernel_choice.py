"""Which implementation runs: what was asked for, or what was measured faster."""

import jax
import jax.numpy as jnp
import pytest

from gnomon.kernels import adam, adamp
from gnomon.kernels.engine import choice as choices
from gnomon.kernels.engine.choice import choose


def supported(kernel):
    return None


def unsupported(kernel):
    return "units of 3"


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_a_kernel_that_was_not_measured_is_no_default(platform):
    assert choose("op", None, supported, platform=platform).implementation == "xla"


def test_a_measured_kernel_is_the_default_where_it_was_measured(monkeypatch):
    monkeypatch.setattr(choices, "FASTER_THAN_XLA", {"op": frozenset({"tpu"})})
    choice = choose("op", None, supported, platform="tpu")
    assert choice == ("tpu", "measured faster than XLA on tpu")
    assert choose("op", None, supported, platform="gpu").implementation == "xla"
    assert choose("other", None, supported, platform="tpu").implementation == "xla"
    fallen = choose("op", None, unsupported, platform="tpu")
    assert fallen.implementation == "xla"
    assert "units of 3" in fallen.reason


def test_asking_for_what_cannot_run_is_an_error():
    assert choose("op", "tpu", supported, platform="cpu").implementation == "tpu"
    with pytest.raises(ValueError, match=r"tpu kernel of op .* units of 3\."):
        choose("op", "tpu", unsupported)
    with pytest.raises(ValueError, match="implementation must be None, 'xla'"):
        choose("op", "cuda", supported)


def test_gpu_kernels_say_which_jax_they_need(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    with pytest.raises(ValueError, match=r"GPU kernels need jax >= 0\.11"):
        choose("op", "gpu", supported)


@pytest.mark.parametrize("op", [adam, adamp], ids=["adam", "adamp"])
def test_operations_say_what_they_would_do(op):
    for platform in ("cpu", "gpu", "tpu"):
        assert op.explain(platform=platform).implementation == "xla"
    assert op.explain(implementation="tpu").implementation == "tpu"
    with pytest.raises(ValueError, match="no arithmetic for float16"):
        op.explain("float16", implementation="tpu")
    half = [jnp.ones((2, 2), jnp.float16)] * 4
    with pytest.raises(ValueError, match="no arithmetic for float16"):
        op.step(*half, learning_rate=0.1, count=1, implementation="tpu")
