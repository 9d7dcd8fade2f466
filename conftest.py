"""Strict JAX for every test and doctest; eight CPU devices for sharding tests."""

import importlib.metadata
import os

# Before jax is imported: backends read these once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time goes into compiling programs that run for milliseconds. The
# environment, and not jax.config, so that the processes that tests start follow too.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The older code generator takes half the time to compile. Later versions of jaxlib do
# not have the option, and abort on it.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

import jax
import pytest

# Shared by test files, so that its assertions show their values as theirs do.
pytest.register_assert_rewrite("gnomon_contract")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Runs one test in double precision."""
    with jax.enable_x64(True):
        yield
