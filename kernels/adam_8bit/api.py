"""Adam's step on one leaf with moments in eight bits, by whichever implementation."""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.adam.program import Moved, scalars
from gnomon.kernels.adam_8bit import _leaf, reference
from gnomon.kernels.adam_8bit._tiles import too_wide
from gnomon.kernels.companding import BLOCK, Coded, folded
from gnomon.kernels.engine.choice import (
    Choice,
    Implementation,
    choose,
    foreign_dtypes,
    local_shape,
    too_large,
)
from gnomon.kernels.engine.sizes import Tpu, sized

# As much of four arrays as the registers of a GPU's warp hold.
LONGEST = 512


def refusal(
    kernel: str,
    *dtypes: jax.typing.DTypeLike,
    block: int,
    shape: Sequence[int] | None = None,
    sharding: NamedSharding | None = None,
    sizes: Tpu | None = None,
) -> str | None:
    """Why a kernel cannot update a leaf, or None.

    Args:
      kernel: ``"tpu"`` or ``"gpu"``.
      *dtypes: of the parameter and the gradient.
      block: numbers that share one scale.
      shape: of the leaf, where it is known.
      sharding: how it lies on a mesh.
      sizes: how much a TPU's kernel takes at a time, if not as usual.

    Returns:
      The reason.
    """
    if block % 128:
        return f"blocks of {block} are not multiples of the 128 lanes of a register"
    if kernel == "gpu" and block > LONGEST:
        return f"blocks of {block} are longer than {LONGEST}"
    local = local_shape(shape, sharding)
    if kernel == "gpu" and local is not None and folded(local, block)[1] % block == 1:
        return "the last block is a single number"
    reason = too_large(kernel, math.prod(local or ())) or foreign_dtypes(*dtypes)
    if reason is None and kernel == "tpu":
        reason = too_wide(local, *dtypes, block=block, sizes=sizes or Tpu())
    if reason is not None or sharding is None or shape is None:
        return reason
    if _leaf.cuts(tuple(shape), sharding, block) is None:
        return f"{sharding.spec} cuts through blocks of {block}"
    return None


def explain(
    dtype: jax.typing.DTypeLike = "float32",
    *,
    block: int = BLOCK,
    gradient_dtype: jax.typing.DTypeLike | None = None,
    shape: Sequence[int] | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    platform: str | None = None,
    fall_back: bool = False,
) -> Choice:
    """Which implementation :func:`step` takes, and why.

    Args:
      dtype: dtype of the parameter.
      block: numbers that share one scale.
      gradient_dtype: dtype of the gradient, default the parameter's.
      shape: of the parameter; without it the answer is that for most shapes.
      sharding: how it lies on a mesh.
      implementation: as in :func:`step`.
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; default JAX's default backend.
      fall_back: as in :func:`step`.

    Returns:
      The choice and its reason.

    Raises:
      ValueError: as in :func:`step`.

    Example:
      >>> explain(platform="tpu").implementation
      'xla'
      >>> explain(block=64, implementation="tpu")
      Traceback (most recent call last):
      ValueError: the tpu kernel of adam_8bit does not support this call: blocks of 64
      are not multiples of the 128 lanes of a register. Pass implementation=None to fall
      back to XLA, or 'xla'.
    """
    dtypes = (dtype, gradient_dtype or dtype)
    local = local_shape(shape, sharding)
    leaf: Any = dict(block=block, shape=shape, sharding=sharding)
    sizes = implementation if isinstance(implementation, Tpu) else None
    return choose(
        "adam_8bit",
        implementation,
        lambda kernel: refusal(kernel, *dtypes, **leaf, sizes=sizes),
        platform=platform,
        fall_back=fall_back,
        empty=local is not None and math.prod(local) == 0,
    )


def step(
    w: jax.Array,
    g: jax.Array,
    m: Coded,
    v: Coded,
    *,
    learning_rate: jax.typing.ArrayLike,
    count: jax.typing.ArrayLike,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: jax.typing.ArrayLike = 0.0,
    pull: jax.Array | None = None,
    nesterov: bool = False,
    stochastic: bool = True,
    block: int = BLOCK,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Moved:
    """One step of :func:`gnomon.kernels.adam.step` on coded moments.

    Reads parameter and gradient, writes the parameter, and reads and writes 2.03 bytes
    of moments: 16.1 bytes a parameter in float32 instead of 28, and 10.1 with bfloat16
    parameters and gradients.

    Both kernels do so in one launch a leaf, of any shape, in place where the caller
    donates it, and ask for blocks of a multiple of 128. That for TPUs takes 128 rows
    of eight blocks at a time, which must fit 48 MiB of VMEM; blocks of 1024 do. That
    for GPUs (Hopper, jax >= 0.11) asks for blocks of at most 512, fewer than 2**31
    numbers, and more than one number in the last block. A leaf that is sharded must be
    cut between blocks.

    Args:
      w: the parameter, of any shape; float32 or bfloat16.
      g: the gradient.
      m: the first moment, int8 codes, see :mod:`gnomon.kernels.companding`.
      v: the second moment, uint8 codes.
      learning_rate: step size, a scalar, traced or not (as all numbers here).
      count: steps taken, this one included, from 1. It also seeds the rounding.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the denominator after bias correction, default 1e-8.
      weight_decay: decoupled weight decay, per learning rate, default 0.
      pull: in place of the weight decay, an array of the rank of ``w`` that broadcasts
        against it; AdamP's step is this one with what it computes.
      nesterov: use the look-ahead first moment.
      stochastic: round the moments at random, the default, or to nearest. The draw is
        the same in every implementation; shards draw their own.
      block: numbers that share one scale, default 256.
      key: rounds bfloat16 parameters stochastically, see
        :func:`gnomon.kernels.adam.step`.
      sharding: how the leaf lies on a mesh, for kernels; XLA needs no telling.
      implementation: ``"xla"``, ``"tpu"``, ``"gpu"``, or None to pick.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Returns:
      The new parameter and the coded moments.

    Raises:
      ValueError: if ``implementation`` names a kernel that does not support the call.

    Example:
      >>> from gnomon.kernels.companding import encode
      >>> w, zero = jnp.ones(4), jnp.zeros(4)
      >>> m, v = encode(zero, "int8"), encode(zero, "uint8")
      >>> moved = step(w, w, m, v, learning_rate=0.1, count=1)
      >>> print(moved.w, moved.m.codes)
      [0.9 0.9 0.9 0.9] [127 127 127 127]
    """
    chosen = explain(
        w.dtype,
        block=block,
        gradient_dtype=g.dtype,
        shape=w.shape,
        sharding=sharding,
        implementation=implementation,
        fall_back=fall_back,
    )
    s = scalars(
        jnp.float32,
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        count=count,
    )
    kwargs: dict[str, Any] = dict(
        pull=pull, nesterov=nesterov, stochastic=stochastic, block=block, key=key
    )
    steps = jnp.asarray(count)
    if chosen.implementation == "xla":
        return reference.step(w, g, m, v, s, steps, **kwargs)
    # Pallas takes as long to import as JAX itself; only those who use it pay.
    module = importlib.import_module(f"{__package__}.{chosen.implementation}")
    kwargs |= dict(
        sharding=sharding, sizes=sized(implementation, chosen.implementation)
    )
    return module.step(w, g, m, v, s, steps, **kwargs)
