"""Weight normalization by XLA or by a kernel."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.choice import Choice, Implementation, choose
from gnomon.kernels.engine.fused import Kernel, fused
from gnomon.kernels.engine.layout import fold, unfold
from gnomon.kernels.engine.sizes import sized
from gnomon.kernels.weight_norm import reference
from gnomon.kernels.weight_norm._geometry import folded, normalize_axes, refusal


def weight_norm(
    v: Array,
    g: Array,
    *,
    axis: int | tuple[int, ...],
    eps: jax.typing.ArrayLike = 1e-8,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Array:
    r"""A weight of which the length and the direction of each unit are given apart.

    $$w = \frac{g}{\|v\|_\epsilon} v, \qquad
      \|v\|_\epsilon = \sqrt{\|v\|^2 + \epsilon}$$

    with the cotangents, where $u = v / \|v\|_\epsilon$,

    $$\bar g = \langle \bar w, u \rangle, \qquad
      \bar v = \frac{g}{\|v\|_\epsilon} (\bar w - \bar g\, u) .$$

    Sums are float32 (float64 for float64) and the result has the dtype of `v`. A zero
    unit gives zeros, with finite derivatives, even with `eps=0`. A kernel reads `v`
    once and has a backward kernel that reads `v` and the cotangent once, transposed
    before and after where the axes of a unit are not neighbors in memory; only the
    reference has forward-mode and second derivatives, or one with respect to `eps`.

    Args:
      v: directions, of any float dtype for XLA, float32 or bfloat16 for the kernels.
      g: lengths, as many as there are units and in their order, of any shape.
      axis: the axes inside one unit: 0 of a dense kernel (in, out), 1 of an embedding.
      eps: added to the squared length. Default 1e-8.
      implementation: "xla", "tpu", "gpu", or None, the default, for what
        :func:`explain` says. Sharded arrays need `jax.shard_map` around a kernel.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Raises:
      ValueError: if `axis` or the size of `g` does not fit `v`, or a kernel that is
        asked for does not support them.

    Example:
      >>> import jax.numpy as jnp
      >>> weight_norm(jnp.array([[3.0, 0.0], [4.0, 0.0]]), jnp.ones(2), axis=0).round(3)
      Array([[0.6, 0. ],
             [0.8, 0. ]], dtype=float32)

    References:
      Salimans & Kingma, Weight Normalization: A Simple Reparameterization to Accelerate
      Training of Deep Neural Networks, 2016 (https://arxiv.org/abs/1602.07868).
    """
    axes = normalize_axes(axis, v.ndim)
    units = math.prod(size for i, size in enumerate(v.shape) if i not in axes)
    if g.size != units:
        raise ValueError(
            f"g has {g.size} numbers; v of shape {v.shape} has {units} units over "
            f"axis={axis}"
        )
    choice = explain(v, axes, implementation, fall_back=fall_back)
    if choice.implementation == "xla":
        return reference.weight_norm(v, g, axes, eps)
    seen = folded(choice.implementation, v.shape, axes)
    per_unit = [1 if i in axes else size for i, size in enumerate(v.shape)]
    w = fused(
        Kernel(
            f"gnomon.kernels.weight_norm.{choice.implementation}",
            sized(implementation, choice.implementation),
        ),
        jnp.asarray(eps, jnp.float32),
        fold(v, seen),
        fold(g.astype(jnp.float32).reshape(per_unit), seen),
    )
    return unfold(w, seen, v.shape)


def explain(
    v: Array | jax.ShapeDtypeStruct,
    axis: int | tuple[int, ...],
    implementation: Implementation | None = None,
    *,
    fall_back: bool = False,
) -> Choice:
    """What `weight_norm` runs for such a `v`, and why.

    Example:
      >>> import jax.numpy as jnp
      >>> explain(jnp.ones((3, 8, 128)), (0, 2))
      Choice(implementation='xla', reason='weight_norm has no kernel for cpu')
    """
    axes = normalize_axes(axis, v.ndim)
    check = functools.partial(refusal, v=v, axes=axes)
    return choose(
        "weight_norm",
        implementation,
        check,
        fall_back=fall_back,
        empty=not math.prod(v.shape),
    )
