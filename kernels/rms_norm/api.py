"""RMSNorm by XLA or by a kernel."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.choice import Choice, Implementation, choose
from gnomon.kernels.engine.fused import Kernel, fused
from gnomon.kernels.engine.rows import check_vector, rows_refusal
from gnomon.kernels.engine.sizes import sized
from gnomon.kernels.rms_norm import reference


def rms_norm(
    x: Array,
    scale: Array,
    *,
    eps: jax.typing.ArrayLike = 1e-6,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Array:
    r"""Root-mean-square normalization over the last axis.

    $$y = x / \sqrt{\operatorname{mean}(x^2) + \epsilon} \cdot scale$$

    Sums are float32 (float64 for float64) and the result has the input's dtype. A zero
    row gives zeros, with finite derivatives, even with `eps=0`. A kernel reads `x` once
    and has a backward kernel that reads `x` and the cotangent once; only the reference
    has forward-mode and second derivatives, or one with respect to `eps`.

    Args:
      x: [..., n], of any float dtype for XLA, float32 or bfloat16 for the kernels.
      scale: [n].
      eps: added to the mean of squares. Default 1e-6.
      implementation: "xla", "tpu", "gpu", or None, the default, for what
        :func:`explain` says. Sharded arrays need `jax.shard_map` around a kernel.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Raises:
      ValueError: if `scale` does not fit `x`, or a kernel that is asked for does not
        support them.

    Example:
      >>> import jax.numpy as jnp
      >>> rms_norm(jnp.array([[0.0, -4.0]]), jnp.ones(2)).round(3)
      Array([[ 0.   , -1.414]], dtype=float32)

    References:
      Zhang & Sennrich, Root Mean Square Layer Normalization, 2019
      (https://arxiv.org/abs/1910.07467).
    """
    check_vector("scale", scale, x)
    choice = explain(x, implementation, fall_back=fall_back)
    if choice.implementation == "xla":
        return reference.rms_norm(x, scale, eps)
    chosen = choice.implementation
    module = f"gnomon.kernels.rms_norm.{chosen}"
    kernel = Kernel(module, sized(implementation, chosen))
    rows = x.reshape(-1, x.shape[-1])
    # Of any dtype: a kernel reads them in float32.
    vectors = [v.astype(jnp.float32) for v in (scale,)]
    y = fused(kernel, jnp.asarray(eps, jnp.float32), rows, *vectors)
    return y.reshape(x.shape)


def explain(
    x: Array | jax.ShapeDtypeStruct,
    implementation: Implementation | None = None,
    *,
    fall_back: bool = False,
) -> Choice:
    """What `rms_norm` runs for such an `x`, and why.

    Example:
      >>> import jax.numpy as jnp
      >>> explain(jnp.ones((8, 128)), "tpu")
      Choice(implementation='tpu', reason='asked for')
    """
    refusal = functools.partial(rows_refusal, x=x)
    return choose(
        "rms_norm",
        implementation,
        refusal,
        fall_back=fall_back,
        empty=not math.prod(x.shape),
    )
