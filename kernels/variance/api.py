"""A step and the rescaling of wide layers, by whichever kernel is asked for."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.engine.choice import Implementation, LeafOp
from gnomon.kernels.engine.program import positive_axes
from gnomon.kernels.variance.program import Scalars, program
from gnomon.parameters.trees import compute_dtype

OPERATION = LeafOp("variance", {"update_dtype": "float32"})
explain = OPERATION.explain


def step(
    w: jax.Array,
    u: jax.Array,
    *,
    target: jax.typing.ArrayLike,
    ratio: jax.typing.ArrayLike = 1.2,
    stack: Sequence[int] = (),
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> jax.Array:
    r"""One step, and back to the target for layers grown too wide, in place if donated.

    With the mean :math:`\mu` and the standard deviation :math:`s` (Bessel's) of
    :math:`x = w + u` over a layer,

    .. math::
      w \leftarrow \begin{cases}
        s_t\, (x - \mu) / s + \mu & \text{if } s > r\, s_t \\ x & \text{otherwise.}
      \end{cases}

    A kernel moves 12 bytes a parameter in float32, 6 in bfloat16, and 28 and 14 where a
    layer does not fit the chip.

    Args:
      w: the parameter, of any shape; float32 or bfloat16.
      u: the update, with its sign.
      target: the deviation :math:`s_t`: a scalar, traced or not, or an array with one
        number a layer that broadcasts against ``w``.
      ratio: :math:`r`, how far above it is tolerated, default 1.2.
      stack: axes that run over layers.
      key: rounds bfloat16 parameters stochastically, see
        :func:`gnomon.kernels.adam.step`.
      sharding: how ``w`` and ``u`` lie on a mesh, for kernels; XLA needs no telling.
      implementation: ``"xla"``, ``"tpu"``, ``"gpu"``, or None to pick.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Returns:
      The new parameter, in the dtype it came in.

    Raises:
      ValueError: if ``target`` does not broadcast to one number a layer, or
        ``implementation`` names a kernel that does not support the call.

    Example:
      >>> w = jnp.array([1.0, 2.0, 3.0, 6.0])
      >>> moved = step(w, jnp.zeros(4), target=0.5)
      >>> print(f"mean {moved.mean():.3f}, std {moved.std(ddof=1):.3f}")
      mean 3.000, std 0.500
    """
    run = OPERATION.runner(
        *(w, u),
        sharding=sharding,
        implementation=implementation,
        fall_back=fall_back,
    )
    layers = positive_axes(stack, w.ndim)
    axes = tuple(axis for axis in range(w.ndim) if axis not in layers)
    dtype = compute_dtype(w.dtype)
    goal = jnp.broadcast_to(
        jnp.asarray(target).astype(dtype),
        tuple(1 if axis in axes else n for axis, n in enumerate(w.shape)),
    )
    moved = run.step(
        program(math.prod(w.shape[axis] for axis in axes)),
        {"w": w, "u": u},
        {"target": goal},
        Scalars(jnp.asarray(ratio).astype(dtype)),
        reduce=axes,
        stack=layers,
        key=key,
        sharding=sharding,
    )
    return moved["w"]
