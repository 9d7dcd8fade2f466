"""AdamP's step on one leaf, by whichever implementation is asked for."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.adam.program import Moved, program, scalars
from gnomon.kernels.adamp import coded
from gnomon.kernels.adamp.program import Units, pull
from gnomon.kernels.companding import BLOCK, Coded
from gnomon.kernels.engine.choice import Implementation, LeafOp
from gnomon.kernels.engine.program import positive_axes
from gnomon.parameters.trees import compute_dtype

OPERATION = LeafOp("adamp", {"gradient_dtype": None, "moment_dtype": "float32"})
explain = OPERATION.explain


def step(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array | Coded,
    v: jax.Array | Coded,
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
    layers: int = 0,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Moved:
    r"""One step of AdamP, in place under donation.

    With :math:`p` the direction of :func:`gnomon.kernels.adam.step`,

    .. math::
      w \leftarrow w - \eta\, (p - \Pi^r_w(p) + \lambda \rho w)

    where the radial part :math:`\Pi^r_w(p)` is removed and :math:`\rho` is ``wd_ratio``
    where :math:`|\cos(g_i, w_i)| < \delta / \sqrt{n_i}` for every unit, or else for the
    layer as a whole; elsewhere nothing is removed and :math:`\rho` is 1.

    The kernel reads gradient and parameter for the test, then four arrays, and writes
    three: 36 bytes a parameter in float32, 26 with bfloat16 parameters and gradients.
    Four arrays are read once more, 16 bytes in float32, in steps that project a layer
    as a whole, and in steps that project at all where a unit does not fit the chip or
    is spread over several. A GPU holds units that are rows of at most 2048 numbers, or
    columns that a strip of fits the shared memory of a block (up to 1600 numbers in
    float32); where 128 does not divide a row its sums are XLA's, which read more in
    every step.

    With moments in eight bits it is :func:`gnomon.kernels.adam_8bit.step`, of the same
    leaves, with a coefficient of the parameter for every unit. The sums over units are
    left to XLA, which needs one more pass over parameter, gradient and codes for the
    inner products of units with their directions: on a TPU in those steps alone that
    project, on a GPU in all, because XLA makes a selection of the condition there.

    Args:
      w: the parameter, of any shape; float32 or bfloat16.
      g: the gradient.
      m: the first moment, float32 or bfloat16, or int8 codes, see
        :mod:`gnomon.kernels.companding`.
      v: the second moment, float32, or uint8 codes; both are coded, or neither.
      learning_rate: step size, a scalar, traced or not (as all numbers here).
      count: steps taken, this one included, from 1.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the denominator after bias correction, and guard of the norms,
        default 1e-8.
      weight_decay: decoupled weight decay, per learning rate, default 0.
      delta: threshold of the gradient test, default 0.1.
      wd_ratio: factor on weight decay where the test passed, default 0.1.
      reduce: axes inside one unit, default the last; with none this is Adam's step.
      stack: axes that run over layers, each tested on its own.
      nesterov: use :math:`\beta_1 m + (1 - \beta_1) g` in place of :math:`m`.
      stochastic: round coded moments at random, the default, or to nearest.
      block: numbers of a coded moment that share one scale, default 256.
      layers: how many leading axes run over layers of which each has blocks and draws
        of its own, default none.
      key: rounds bfloat16 parameters stochastically, see
        :func:`gnomon.kernels.adam.step`.
      sharding: how the four arrays lie on a mesh, for kernels; XLA needs no telling.
      implementation: ``"xla"``, ``"tpu"``, ``"gpu"``, or None to pick.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Returns:
      The new parameter and moments, in the dtypes they came in, or coded as they came.

    Raises:
      ValueError: if ``implementation`` names a kernel that does not support the call.

    Example:
      Momentum along the weight moves its norm, 5 at first, where the gradient is along
      the weight too, and only the direction where the gradient is across:

      >>> w = jnp.array([[3.0, 4.0]])
      >>> for g in (w, jnp.array([[-4.0, 3.0]])):
      ...     moved = step(w, g, w, jnp.ones((1, 2)), learning_rate=0.1, count=100)
      ...     print(f"{jnp.linalg.norm(moved.w):.2f}")
      4.85
      5.00
    """
    units = Units(*(positive_axes(axes, w.ndim) for axes in (reduce, stack)))
    hypers: Any = dict(
        learning_rate=learning_rate,
        count=count,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
    )
    place: Any = dict(
        sharding=sharding, implementation=implementation, fall_back=fall_back
    )
    if isinstance(m, Coded):
        return coded.step(
            (w, g, m, v),
            layers,
            units,
            hypers | dict(delta=delta, wd_ratio=wd_ratio),
            dict(nesterov=nesterov, stochastic=stochastic, block=block),
            place | dict(key=key),
        )
    dtype = compute_dtype(w.dtype)
    s = scalars(dtype, **hypers)
    arrays: dict[str, Any] = {"w": w, "g": g, "m": m, "v": v}
    axes = dict(reduce=units.reduce, stack=units.stack, sharding=sharding)
    run = OPERATION.runner(
        *arrays.values(),
        **place,
    )
    if not units.reduce:
        last = program(nesterov=nesterov)
        return Moved(**run.step(last, arrays, {}, s, **axes, key=key))
    update = functools.partial(program, nesterov=nesterov, pulled=True)
    whole = run.holds(update(projects=True), arrays, **axes)
    per_unit = pull(
        lambda sweeps: run.sums(sweeps, arrays, {}, s, **axes),
        *(w.shape, s, units),
        delta=jnp.asarray(delta).astype(dtype),
        wd_ratio=jnp.asarray(wd_ratio).astype(dtype),
        nesterov=nesterov,
        whole=whole,
    )
    last = update(projects=whole)
    return Moved(**run.step(last, arrays, per_unit, s, **axes, key=key))
