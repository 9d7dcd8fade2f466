"""AdamP's step on one leaf with moments in eight bits, by whichever implementation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.adam.program import scalars
from gnomon.kernels.adam_8bit import api as adam_8bit
from gnomon.kernels.adam_8bit.reference import Moved
from gnomon.kernels.adamp.program import Units, pull
from gnomon.kernels.companding import BLOCK, Coded, decode
from gnomon.kernels.engine.choice import Implementation
from gnomon.kernels.engine.program import positive_axes, totals_of


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
    delta: jax.typing.ArrayLike = 0.1,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    reduce: Sequence[int] = (-1,),
    stack: Sequence[int] = (),
    nesterov: bool = False,
    stochastic: bool = True,
    block: int = BLOCK,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Moved:
    """One step of :func:`gnomon.kernels.adamp.step` on coded moments.

    The sums over units are left to XLA: what AdamP adds to Adam's step is one
    coefficient of the parameter for every unit, and the kernel is that of
    :func:`gnomon.kernels.adam_8bit.step`, which takes it, on TPU and GPU alike, and the
    same leaves. It needs the inner products of units with their directions, one more
    pass over parameter, gradient and codes: on a TPU in those steps alone that project,
    on a GPU in all, because XLA makes a selection of the condition there.

    Args:
      w: the parameter, of any shape; float32 or bfloat16.
      g: the gradient.
      m: the first moment, int8 codes.
      v: the second moment, uint8 codes.
      learning_rate: step size, a scalar, traced or not (as all numbers here).
      count: steps taken, this one included, from 1. It also seeds the rounding.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the denominator after bias correction, and guard of the norms,
        default 1e-8.
      weight_decay: decoupled weight decay, per learning rate, default 0.
      delta: threshold of the gradient test, default 0.1.
      wd_ratio: factor on weight decay where the test passed, default 0.1.
      reduce: axes inside one unit, default the last; with none this is Adam's step.
      stack: axes that run over layers, each tested on its own.
      nesterov: use the look-ahead first moment.
      stochastic: round the moments at random, the default, or to nearest.
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
    """
    units = Units(*(positive_axes(axes, w.ndim) for axes in (reduce, stack)))
    decay = None
    if units.reduce and w.size:
        s = scalars(
            jnp.float32,
            learning_rate=learning_rate,
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=weight_decay,
            count=count,
        )
        arrays = {"w": w, "g": g, "m": m, "v": v}

        def read(x, dtype):
            return decode(x, block=block) if isinstance(x, Coded) else x.astype(dtype)

        decay = pull(
            lambda sweeps: totals_of(
                *(sweeps, arrays, {}, s, units.reduce, jnp.float32), read=read
            ),
            *(w.shape, s, units),
            delta=jnp.asarray(delta).astype(jnp.float32),
            wd_ratio=jnp.asarray(wd_ratio).astype(jnp.float32),
            nesterov=nesterov,
        )["decay"]
    return adam_8bit.step(
        w,
        g,
        m,
        v,
        learning_rate=learning_rate,
        count=count,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        pull=decay,
        nesterov=nesterov,
        stochastic=stochastic,
        block=block,
        key=key,
        sharding=sharding,
        implementation=implementation,
        fall_back=fall_back,
    )
