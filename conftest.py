"""Strict JAX for every test and doctest; eight CPU devices for sharding tests."""

import importlib.metadata
import os

# Before jax is imported: backends read these once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time goes into compiling programs that run for milliseconds. The
# environment, and not jax.config, so that the processes that tests start follow too.
# `make test-optimized` asks for what users get.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The older code generator takes half the time to compile. Later versions of jaxlib do
# not have the option, and abort on it.
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0" and importlib.metadata.version(
    "jaxlib"
).startswith("0.10."):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

import hypothesis
import jax
import pytest

# Shared by test files, so that its assertions show their values as theirs do.
pytest.register_assert_rewrite("gnomon_contract")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples every time, so that a failure is of the change that it is found in;
# HYPOTHESIS_PROFILE=random draws others.
hypothesis.settings.register_profile("derandomized", derandomize=True, database=None)
hypothesis.settings.register_profile("random", derandomize=False, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "derandomized"))


@pytest.fixture
def x64():
    """Runs one test in double precision."""
    with jax.enable_x64(True):
        yield
