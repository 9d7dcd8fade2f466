"""FAdam's step on one leaf, by whichever implementation is asked for."""

import functools
import importlib
from collections.abc import Callable, Sequence

import jax
from jax.sharding import NamedSharding

from gnomon.kernels.adam.reference import compute_dtype
from gnomon.kernels.engine.choice import Choice, Implementation, choose_leaf
from gnomon.kernels.engine.program import positive_axes
from gnomon.kernels.fadam import reference
from gnomon.kernels.fadam.reference import ClipRule, EpsRule, Moved, Options


def explain(
    dtype: jax.typing.DTypeLike = "float32",
    *,
    moment_dtype: jax.typing.DTypeLike = "float32",
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
      moment_dtype: dtype of the momentum.
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
      >>> explain(platform="cpu")
      Choice(implementation='xla', reason='fadam has no kernel for cpu')
    """
    return choose_leaf(
        "fadam",
        (dtype, gradient_dtype or dtype, moment_dtype),
        shape=shape,
        sharding=sharding,
        implementation=implementation,
        platform=platform,
        fall_back=fall_back,
    )


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
    chosen = choose_leaf(
        "fadam",
        (w.dtype, g.dtype, m.dtype, root.dtype),
        shape=w.shape,
        sharding=sharding,
        implementation=implementation,
        fall_back=fall_back,
    )
    layers = positive_axes(stack, w.ndim)
    s = reference.scalars(
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
    run: Callable[..., Moved] = reference.step
    if chosen.implementation != "xla":
        # Pallas takes as long to import as JAX itself; only those who use it pay.
        kernel = importlib.import_module(
            f"gnomon.kernels.fadam.{chosen.implementation}"
        )
        run = functools.partial(kernel.step, sharding=sharding)
    options = Options(eps_rule, eps_to_2p, clip_rule, decays)
    axes = tuple(axis for axis in range(w.ndim) if axis not in layers)
    return run(w, g, m, root, s, options, axes, key=key)
