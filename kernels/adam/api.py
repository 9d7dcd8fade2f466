"""Adam's step on one leaf, by whichever implementation is asked for."""

import jax
from jax.sharding import NamedSharding

from gnomon.kernels.adam.program import Moved, program, scalars
from gnomon.kernels.engine.choice import Implementation, LeafOp
from gnomon.parameters.trees import compute_dtype

OPERATION = LeafOp("adam", {"gradient_dtype": None, "moment_dtype": "float32"})
explain = OPERATION.explain


def step(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    *,
    learning_rate: jax.typing.ArrayLike,
    count: jax.typing.ArrayLike,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: jax.typing.ArrayLike = 0.0,
    nesterov: bool = False,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Moved:
    r"""One step of Adam with decoupled weight decay, in place under donation.

    .. math::
      m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
      w &\leftarrow w - \eta \Big(\frac{m}{1 - \beta_1^t} \Big/
        \Big(\sqrt{v / (1 - \beta_2^t)} + \epsilon\Big) + \lambda w\Big)

    Reads four arrays and writes three: 28 bytes a parameter in float32, 22 with
    bfloat16 parameters and gradients. The result is rounded once.

    Args:
      w: the parameter, of any shape; float32 or bfloat16.
      g: the gradient.
      m: the first moment, float32 or bfloat16.
      v: the second moment, float32.
      learning_rate: step size, a scalar, traced or not (as all numbers here).
      count: steps taken, this one included, from 1.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the denominator after bias correction, default 1e-8.
      weight_decay: decoupled weight decay, per learning rate, default 0.
      nesterov: use :math:`\beta_1 m + (1 - \beta_1) g` in place of :math:`m`.
      key: rounds bfloat16 parameters stochastically. The draw depends on the key and on
        where a number lies, and is the same in every implementation; shards draw their
        own.
      sharding: how the four arrays lie on a mesh, for kernels; XLA needs no telling.
      implementation: ``"xla"``, ``"tpu"``, ``"gpu"``, or None to pick.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Returns:
      The new parameter and moments, in the dtypes they came in.

    Raises:
      ValueError: if ``implementation`` names a kernel that does not support the call.

    Example:
      >>> import jax.numpy as jnp
      >>> one = jnp.ones(2)
      >>> step(one, one, 0 * one, 0 * one, learning_rate=0.1, count=1).w
      Array([0.9, 0.9], dtype=float32)
    """
    run = OPERATION.runner(
        *(w, g, m, v),
        sharding=sharding,
        implementation=implementation,
        fall_back=fall_back,
    )
    s = scalars(
        compute_dtype(w.dtype),
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        count=count,
    )
    arrays = {"w": w, "g": g, "m": m, "v": v}
    how = dict(reduce=(), key=key, sharding=sharding)
    moved = run.step(program(nesterov=nesterov), arrays, {}, s, **how)
    return Moved(**moved)
