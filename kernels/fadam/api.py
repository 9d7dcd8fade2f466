"""FAdam's step on one leaf, by whichever implementation is asked for."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import NamedSharding

from gnomon.kernels.engine.choice import Implementation, LeafOp
from gnomon.kernels.engine.program import positive_axes
from gnomon.kernels.fadam.program import (
    ClipRule,
    EpsRule,
    Moved,
    Options,
    program,
    scalars,
)
from gnomon.parameters.trees import compute_dtype

OPERATION = LeafOp("fadam", {"gradient_dtype": None, "moment_dtype": "float32"})
explain = OPERATION.explain


def step(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    root: jax.Array,
    *,
    learning_rate: jax.typing.ArrayLike,
    count: jax.typing.ArrayLike,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: jax.typing.ArrayLike = 0.1,
    clip: jax.typing.ArrayLike = 1.0,
    p: jax.typing.ArrayLike = 0.5,
    decays: bool = True,
    eps_rule: EpsRule = "min",
    eps_to_2p: bool = True,
    clip_rule: ClipRule = "threshold",
    stack: Sequence[int] = (),
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Moved:
    r"""One step of FAdam, in place under donation.

    .. math::
      r &\leftarrow \sqrt{\hat\beta_2 r^2 + (1 - \hat\beta_2) g^2}, \qquad
      \hat\epsilon = \epsilon \min(1, \operatorname{RMS}(g)), \qquad
      D = r^{2p} + \hat\epsilon^{2p} \\
      m &\leftarrow \beta_1 m + (1 - \beta_1) \operatorname{clip}(g / D), \qquad
      w \leftarrow w - \eta\, (m + \lambda \operatorname{clip}(w / D)) \\
      \operatorname{clip}(x) &= x / \max(1, \operatorname{RMS}(x) / c)

    with RMS over a layer, see :func:`gnomon.optimizers.fadam`. One RMS is needed before
    the other two can be, and these before any number moves. A kernel that holds a layer
    on the chip still moves 28 bytes a parameter in float32, 22 with bfloat16 parameters
    and gradients, and 44 and 32 where a layer is too large for that.

    Args:
      w: the parameter, of any shape; float32 or bfloat16.
      g: the gradient.
      m: the momentum, float32 or bfloat16.
      root: root of the Fisher information, float32.
      learning_rate: step size, a scalar, traced or not (as all numbers here).
      count: steps taken, this one included, from 1.
      b1: decay of the momentum, default 0.9.
      b2: decay of the Fisher information, default 0.999.
      eps: added to the denominator, relative to the gradient's RMS while that is below
        1, default 1e-8.
      weight_decay: rate of weight decay, default 0.1.
      clip: largest RMS of the natural gradient and of the decay, default 1.
      p: power of the Fisher information, default 1/2.
      decays: False saves the sum for the decay of a leaf that has none. Default True.
      eps_rule: ``"min"`` as above, or ``"max"``.
      eps_to_2p: add :math:`\hat\epsilon^{2p}`, or :math:`\hat\epsilon` if False.
      clip_rule: ``"threshold"`` as above, or ``"scale"``.
      stack: axes that run over layers.
      key: rounds bfloat16 parameters stochastically, see
        :func:`gnomon.kernels.adam.step`.
      sharding: how the four arrays lie on a mesh, for kernels; XLA needs no telling.
      implementation: ``"xla"``, ``"tpu"``, ``"gpu"``, or None to pick.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Returns:
      The new parameter, momentum and root, in the dtypes they came in.

    Raises:
      ValueError: if ``implementation`` names a kernel that does not support the call.

    Example:
      >>> import jax.numpy as jnp
      >>> one = jnp.ones(2)
      >>> moved = step(one, 4 * one, 0 * one, 0 * one, learning_rate=0.1, count=1)
      >>> print(moved.w, moved.root)
      [0.9875 0.9875] [4. 4.]
    """
    run = OPERATION.runner(
        *(w, g, m, root),
        sharding=sharding,
        implementation=implementation,
        fall_back=fall_back,
    )
    layers = positive_axes(stack, w.ndim)
    s = scalars(
        compute_dtype(w.dtype),
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        clip=clip,
        p=p,
        count=count,
    )
    axes = tuple(axis for axis in range(w.ndim) if axis not in layers)
    moved = run.step(
        program(
            Options(eps_rule, eps_to_2p, clip_rule, decays),
            math.prod(w.shape[axis] for axis in axes),
            run.power,
            run.again,
        ),
        {"w": w, "g": g, "m": m, "root": root},
        {},
        s,
        reduce=axes,
        stack=layers,
        key=key,
        sharding=sharding,
    )
    return Moved(**moved)
