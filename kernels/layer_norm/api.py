"""LayerNorm by XLA or by a kernel."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.choice import Choice, Implementation, choose
from gnomon.kernels.engine.fused import Kernel, fused
from gnomon.kernels.engine.rows import check_vector, rows_refusal
from gnomon.kernels.engine.sizes import sized
from gnomon.kernels.layer_norm import reference


def layer_norm(
    x: Array,
    scale: Array,
    bias: Array,
    *,
    eps: jax.typing.ArrayLike = 1e-6,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Array:
    r"""Normalization of mean and variance over the last axis.

    $$y = \frac{x - \operatorname{mean}(x)}
                {\sqrt{\operatorname{var}(x) + \epsilon}} \cdot scale + bias$$

    The variance is biased and taken around the mean in a second sum, so that a large
    mean does no harm. Sums are float32 (float64 for float64) and the result has the
    input's dtype. A constant row gives the bias, with finite derivatives, even with
    `eps=0`. A kernel reads `x` once and has a backward kernel that reads `x` and the
    cotangent once; only the reference has forward-mode and second derivatives, or one
    with respect to `eps`.

    Args:
      x: [..., n], of any float dtype for XLA, float32 or bfloat16 for the kernels.
      scale: [n].
      bias: [n].
      eps: added to the variance. Default 1e-6.
      implementation: "xla", "tpu", "gpu", or None, the default, for what
        :func:`explain` says. Sharded arrays need `jax.shard_map` around a kernel.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Raises:
      ValueError: if `scale` or `bias` does not fit `x`, or a kernel that is asked for
        does not support them.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 3.0]])
      >>> layer_norm(x, jnp.ones(2), jnp.array([0.0, 4.0])).round(3)
      Array([[-1.,  5.]], dtype=float32)

    References:
      Ba, Kiros & Hinton, Layer Normalization, 2016 (https://arxiv.org/abs/1607.06450).
    """
    check_vector("scale", scale, x)
    check_vector("bias", bias, x)
    choice = explain(x, implementation, fall_back=fall_back)
    if choice.implementation == "xla":
        return reference.layer_norm(x, scale, bias, eps)
    chosen = choice.implementation
    module = f"gnomon.kernels.layer_norm.{chosen}"
    kernel = Kernel(module, sized(implementation, chosen))
    rows = x.reshape(-1, x.shape[-1])
    # Of any dtype: a kernel reads them in float32.
    vectors = [v.astype(jnp.float32) for v in (scale, bias)]
    y = fused(kernel, jnp.asarray(eps, jnp.float32), rows, *vectors)
    return y.reshape(x.shape)


def explain(
    x: Array | jax.ShapeDtypeStruct,
    implementation: Implementation | None = None,
    *,
    fall_back: bool = False,
) -> Choice:
    """What `layer_norm` runs for such an `x`, and why.

    Example:
      >>> import jax.numpy as jnp
      >>> explain(jnp.ones((8, 128)), "tpu")
      Choice(implementation='tpu', reason='asked for')
    """
    refusal = functools.partial(rows_refusal, x=x)
    return choose(
        "layer_norm",
        implementation,
        refusal,
        fall_back=fall_back,
        empty=not math.prod(x.shape),
    )
