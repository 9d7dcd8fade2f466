"""A step of fixed norm on one leaf, by whichever implementation is asked for."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.engine.choice import Implementation, LeafOp
from gnomon.kernels.engine.program import positive_axes
from gnomon.kernels.fixed_norm.program import Options, Scalars, program
from gnomon.parameters.trees import compute_dtype

OPERATION = LeafOp("fixed_norm", {"update_dtype": "float32"})
explain = OPERATION.explain


def step(
    w: jax.Array,
    u: jax.Array,
    norm: jax.Array,
    *,
    rate: jax.typing.ArrayLike = 1.0,
    angle: jax.typing.ArrayLike | None = None,
    tangent: bool = False,
    reduce: Sequence[int] | None = None,
    stack: Sequence[int] = (),
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> jax.Array:
    r"""One step on spheres of given norms, in place under donation.

    With :math:`\Pi_w(x) = x - w \langle w, x \rangle / \|w\|^2`, unit by unit,

    .. math::
      v = \rho u \text{ or } \theta R\, u / \|u\|, \qquad
      v \leftarrow \Pi_w(v) \text{ if tangent}, \qquad
      w \leftarrow R\, \frac{w + v}{\|w + v\|}

    and where :math:`R = 0` the plain step :math:`w + \rho u`, radial part and all, as
    where a squared norm overflows (there its tangent part, if that is asked for); an
    update whose own square overflows turns nothing. A kernel moves 12 bytes a parameter
    in float32, 6 in bfloat16, and 20 and 10 where a unit is a layer that does not fit
    the chip.

    A kernel sums the squares of :math:`w + \rho u` itself. For an angle or a tangent
    part it finds :math:`\|w + v\|^2` from :math:`\|w\|^2`, :math:`\langle w, u\rangle`
    and :math:`\|u\|^2`, which would lose its digits in a step that nearly annihilates
    the weight. Where less than a quarter of :math:`\|w\|^2 + \|v\|^2` is left in some
    unit, or squares underflow or overflow, it sums the squares of :math:`w + v` too: 8
    bytes more in float32, 4 in bfloat16, where units do not fit the chip.

    Args:
      w: the parameter, of any shape; float32 or bfloat16.
      u: the update, with its sign: an update that descends is added.
      norm: the norms :math:`R`, with axes in ``reduce`` of size one.
      rate: factor :math:`\rho` on the update, default 1, a scalar, traced or not.
      angle: :math:`\theta`, the length of the update over the norm, with its sign;
        default None, where ``rate`` sets it.
      tangent: take the update's part along the weight away. Default False.
      reduce: axes inside one unit, default all but ``stack``: one norm a layer.
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
      ValueError: if ``norm`` does not fit, or ``implementation`` names a kernel that
        does not support the call.

    Example:
      >>> w, u = jnp.array([3.0, 4.0]), jnp.array([1.0, -2.0])
      >>> print(step(w, u, jnp.array([5.0]), angle=0.1, tangent=True).round(2))
      [3.34 3.72]
    """
    run = OPERATION.runner(
        *(w, u),
        sharding=sharding,
        implementation=implementation,
        fall_back=fall_back,
    )
    layers = positive_axes(stack, w.ndim)
    axes = tuple(axis for axis in range(w.ndim) if axis not in layers)
    if reduce is not None:
        axes = positive_axes(reduce, w.ndim)
    per_unit = tuple(1 if axis in axes else n for axis, n in enumerate(w.shape))
    if norm.shape != per_unit:
        raise ValueError(
            f"norm has shape {norm.shape}; w of shape {w.shape} with reduce={axes} "
            f"asks for {per_unit}"
        )
    dtype = compute_dtype(w.dtype)
    numbers = (rate, 0.0 if angle is None else angle)
    moved = run.step(
        program(Options(angle is not None, tangent)),
        {"w": w, "u": u},
        {"norm": norm},
        Scalars(*(jnp.asarray(x).astype(dtype) for x in numbers)),
        reduce=axes,
        stack=layers,
        key=key,
        sharding=sharding,
    )
    return moved["w"]
