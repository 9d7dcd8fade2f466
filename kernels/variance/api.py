"""A step and the rescaling of wide layers, by whichever kernel is asked for."""

import functools
import importlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.adam.reference import compute_dtype
from gnomon.kernels.engine.choice import Choice, Implementation, choose_leaf
from gnomon.kernels.engine.program import positive_axes
from gnomon.kernels.variance import reference
from gnomon.kernels.variance.reference import Scalars


def explain(
    dtype: jax.typing.DTypeLike = "float32",
    *,
    update_dtype: jax.typing.DTypeLike = "float32",
    shape: Sequence[int] | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    platform: str | None = None,
    fall_back: bool = False,
) -> Choice:
    """Which implementation :func:`step` takes, and why.

    Args:
      dtype: dtype of the parameter.
      update_dtype: dtype of the update.
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
      Choice(implementation='xla', reason='variance has no kernel for cpu')
    """
    return choose_leaf(
        "variance",
        (dtype, update_dtype),
        shape=shape,
        sharding=sharding,
        implementation=implementation,
        platform=platform,
        fall_back=fall_back,
    )


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
    chosen = choose_leaf(
        "variance",
        (w.dtype, u.dtype),
        shape=w.shape,
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
    run: Callable[..., jax.Array] = reference.step
    if chosen.implementation != "xla":
        # Pallas takes as long to import as JAX itself; only those who use it pay.
        kernel = importlib.import_module(
            f"gnomon.kernels.variance.{chosen.implementation}"
        )
        run = functools.partial(kernel.step, sharding=sharding)
    s = Scalars(jnp.asarray(ratio).astype(dtype))
    return run(w, u, goal, s, axes, key=key)
