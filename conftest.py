"""Strict JAX for every test and doctest; eight CPU devices for sharding tests."""

import functools
import gc
import importlib.metadata
import inspect
import os

# Before jax is imported: backends read these once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time goes into compiling programs that run for milliseconds. The
# environment, and not jax.config, so that the processes that tests start follow too.
# `make test-optimized` asks for what users get.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The older code generator takes half the time to compile, and small programs gain
# nothing from being compiled in parts. Later versions of jaxlib do not have every
# option, and abort on one that they do not have.
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0" and importlib.metadata.version(
    "jaxlib"
).startswith("0.10."):
    os.environ["XLA_FLAGS"] = " ".join(
        [
            *os.environ.get("XLA_FLAGS", "").split(),
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",
        ]
    )

import hypothesis
import jax
import pytest
from jax._src.interpreters import mlir

# Shared by test files, so that its assertions show their values as theirs do.
pytest.register_assert_rewrite("gnomon_contract")

# Tracing makes many objects that live on, and looking through them all again and again
# takes its time.
gc.set_threshold(200_000, 50, 100)


def lowering():
    """Whether a program is being lowered, into which what it needs would be written."""
    try:
        return mlir.ir.InsertionPoint.current is not None
    except ValueError:
        return False


def share_context():
    """Lowers all programs in one MLIR context.

    jax makes one for each program, and loads all dialects into it: a fifth of what a
    small program takes. That is of its insides, so a jax without the argument goes on
    as it is.
    """
    init = mlir.ModuleContext.__init__
    argument = inspect.signature(init).parameters.get("context")
    if argument is None or argument.kind is not argument.KEYWORD_ONLY:
        return
    context = mlir.make_ir_context()

    @functools.wraps(init)
    def shared(self, *parts, **given):
        if not given.get("context") and not lowering():
            given["context"] = context
        init(self, *parts, **given)

    mlir.ModuleContext.__init__ = shared


share_context()

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
