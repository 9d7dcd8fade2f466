"""Curvature of a loss: extreme Hessian eigenvalues and stability ratios.

Every function sees the Hessian through products with vectors alone, taken forward over
reverse at about four times the cost of the loss. curvlinops and PyHessian do this for
PyTorch; here the products are `jax.jvp` of `jax.grad` and the recurrence is
:mod:`gnomon.dynamics.lanczos`. Parameters are widened to float32 before the loss sees
them, since second derivatives of a bfloat16 program are mostly rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.dynamics.lanczos import (
    Operator,
    Ritz,
    Tree,
    Tridiagonal,
    lanczos,
    random_like,
    ravel,
    ravel_operator,
    ritz,
    ritz_vectors,
    unravel,
    widen,
)

Loss = Callable[[Any], Array]


class Eigenvalues(NamedTuple):
    """Extreme eigenvalues of a Hessian.

    Attributes:
      values: [k], the largest in falling order; NaN beyond the number of parameters.
      errors: [k], how far each may lie from an eigenvalue of the Hessian.
      smallest: scalar, the most negative Ritz value: an upper bound of the smallest
        eigenvalue.
    """

    values: Array
    errors: Array
    smallest: Array


class Eigenpairs(NamedTuple):
    """Largest eigenvalues of a Hessian and their directions.

    Attributes:
      values: [k], in falling order.
      errors: [k], as in :class:`Eigenvalues`.
      vectors: tree like the parameters with a leading axis of k, of unit length
        together; the sign is arbitrary.
    """

    values: Array
    errors: Array
    vectors: Any


def hessian_vector_product(loss_fn: Loss, params: Any, vector: Tree) -> Tree:
    """The Hessian of the loss times a vector, in float32.

    Args:
      loss_fn: from parameters to a scalar. It is given the parameters in float32
        (float64 leaves as they are) whatever their dtype.
      params: where to take the Hessian.
      vector: tree like `params`.

    Returns:
      A tree like `params` in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> ones = jnp.ones(2)
      >>> hessian_vector_product(lambda w: jnp.sum(w**3), ones, ones).tolist()
      [6.0, 6.0]

    References:
      Pearlmutter, Fast exact multiplication by the Hessian, 1994.
    """
    return jax.jvp(jax.grad(loss_fn), (widen(params),), (widen(vector),))[1]


def hessian_operator(
    loss_fn: Loss, params: Any, *, denominator: Any = None
) -> Operator:
    """The Hessian, or the preconditioned Hessian, as a function of a vector.

    A method that steps by `−lr g / p` for a positive diagonal `p` behaves like gradient
    descent on the Hessian `P⁻¹H`. That matrix is not symmetric; this one is and has the
    same eigenvalues:

        P^(−1/2) H P^(−1/2).

    Args:
      loss_fn: from parameters to a scalar.
      params: where to take the Hessian.
      denominator: tree like `params`, the diagonal `p`. Default none: the Hessian
        itself. An entry that is not positive makes the result NaN.

    Returns:
      A function from a tree like `params` to another.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w: 0.5 * jnp.sum(jnp.array([1.0, 4.0]) * w**2)
      >>> operator = hessian_operator(loss, jnp.ones(2), denominator=jnp.full(2, 2.0))
      >>> operator(jnp.ones(2)).round(4).tolist()
      [0.5, 2.0]
    """
    if denominator is None:
        return lambda vector: hessian_vector_product(loss_fn, params, vector)
    root = jax.tree.map(
        lambda p: jnp.where(p > 0, jax.lax.rsqrt(p), jnp.nan), widen(denominator)
    )

    def matvec(vector: Tree) -> Tree:
        vector = jax.tree.map(jnp.multiply, root, widen(vector))
        product = hessian_vector_product(loss_fn, params, vector)
        return jax.tree.map(jnp.multiply, root, product)

    return matvec


def top_eigenvalues(
    loss_fn: Loss,
    params: Any,
    *,
    k: int = 1,
    iterations: int = 32,
    key: Array | None = None,
    denominator: Any = None,
    raveled: bool = True,
) -> Eigenvalues:
    """The largest eigenvalues of the Hessian, by Lanczos.

    `values[0]` is the sharpness. The run costs `iterations` Hessian-vector products
    and as many float32 copies of the parameters; 16 to 32 give the sharpness of a
    network to three digits, and `errors` says how well it went. A pure function of
    arrays: call it under jit, vmap over parameters, or inside a scan.

    Args:
      loss_fn: from parameters to a scalar, usually a closure over a fixed batch.
      params: where to take the Hessian. Sharded parameters keep their sharding.
      k: how many eigenvalues. Default 1. They are told apart by one starting vector,
        so a multiple eigenvalue counts once.
      iterations: Lanczos steps, at least `k`. Default 32; capped by the number of
        parameters.
      key: seed of the starting vector. Default `jax.random.key(0)`.
      denominator: a positive diagonal preconditioner, see :func:`hessian_operator` and
        :func:`adam_denominator`. Default none.
      raveled: whether the Lanczos basis is one [iterations, parameters] array (the
        default), which compiles several times faster for a tree of many leaves. False
        keeps it a tree, sharded as the parameters are: for those that one device
        cannot hold.

    Returns:
      The `Eigenvalues`; NaN where the loss or a derivative is not finite.

    Raises:
      ValueError: if `k` is less than one or more than `iterations`.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w: 0.5 * jnp.sum(jnp.array([-1.0, 2.0, 7.0]) * w**2)
      >>> top = top_eigenvalues(loss, jnp.ones(3), k=2)
      >>> top.values.round(4).tolist(), round(float(top.smallest), 4)
      ([7.0, 2.0], -1.0)

    References:
      Ghorbani et al., An Investigation into Neural Net Optimization via Hessian
      Eigenvalue Density, 2019 (https://arxiv.org/abs/1901.10159).
      Cohen et al., Adaptive Gradient Methods at the Edge of Stability, 2022
      (https://arxiv.org/abs/2207.14484), for the preconditioned Hessian.
    """
    operator = hessian_operator(loss_fn, params, denominator=denominator)
    _, pairs = _decompose(operator, params, k, iterations, key, raveled)
    return Eigenvalues(_pad(pairs.values, k), _pad(pairs.errors, k), pairs.values[-1])


def top_eigenpairs(
    loss_fn: Loss,
    params: Any,
    *,
    k: int = 1,
    iterations: int = 32,
    key: Array | None = None,
    denominator: Any = None,
    raveled: bool = True,
) -> Eigenpairs:
    """As :func:`top_eigenvalues`, with the eigenvectors.

    Args:
      loss_fn: as there, and so are the others.
      params: where to take the Hessian.
      k: how many pairs, at most the number of parameters. Default 1.
      iterations: Lanczos steps. Default 32.
      key: seed of the starting vector.
      denominator: a positive diagonal preconditioner. The vectors are those of the
        symmetric form; multiply by `p^(−1/2)` for the directions in weight space.
      raveled: as there.

    Returns:
      The `Eigenpairs`.

    Raises:
      ValueError: if `k` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w: 0.5 * jnp.sum(jnp.array([1.0, 2.0, 7.0]) * w**2)
      >>> abs(top_eigenpairs(loss, jnp.ones(3)).vectors).round(3).tolist()
      [[0.0, 0.0, 1.0]]
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if k > size:
        raise ValueError(f"k: {k} eigenvectors of {size} parameters; lower k")
    operator = hessian_operator(loss_fn, params, denominator=denominator)
    tridiagonal, pairs = _decompose(operator, params, k, iterations, key, raveled)
    vectors = ritz_vectors(tridiagonal, pairs, k)
    if raveled:
        vectors = jax.vmap(lambda v: unravel(v, params))(vectors)
    return Eigenpairs(pairs.values[:k], pairs.errors[:k], vectors)


def adam_denominator(
    opt_state: Any,
    *,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
) -> Any:
    """The diagonal by which Adam divides, read from an optax state.

        p = (1 − b1ᵗ) (√(ν / (1 − b2ᵗ) + eps_root) + eps)

    The first factor is the bias correction of the mean, which scales the step and so
    belongs to the preconditioner; it is 1 late in training.

    Args:
      opt_state: a state that holds, at any depth, exactly one state with the fields
        `nu` and `count`, such as that of `optax.adamw`.
      b1: decay of the mean. Default 0.9.
      b2: decay of the second moment. Default 0.999.
      eps: as the optimizer's. Default 1e-8.
      eps_root: as the optimizer's. Default 0.

    Returns:
      A tree like the parameters in float32; NaN before the first step.

    Raises:
      ValueError: if there is no such state, or more than one.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> state = optax.ScaleByAdamState(
      ...     count=jnp.int32(1), mu=jnp.array([0.3]), nu=jnp.array([0.009]))
      >>> print("%.4f" % adam_denominator((state, optax.EmptyState()))[0])
      0.3000

    References:
      Cohen et al., Adaptive Gradient Methods at the Edge of Stability, 2022
      (https://arxiv.org/abs/2207.14484).
    """

    def is_adam(node: Any) -> bool:
        return getattr(node, "nu", None) is not None and hasattr(node, "count")

    found = [s for s in jax.tree.leaves(opt_state, is_leaf=is_adam) if is_adam(s)]
    if len(found) != 1:
        raise ValueError(
            f"opt_state: {len(found)} states with the fields nu and count; pass the "
            "part of the state that holds exactly one, or build the denominator"
        )

    def leaf(nu: Array) -> Array:
        dtype = nu.dtype
        count = jnp.asarray(found[0].count).astype(dtype)
        d1, d2, e, r = (jnp.asarray(x).astype(dtype) for x in (b1, b2, eps, eps_root))
        return (1 - d1**count) * (jnp.sqrt(nu / (1 - d2**count) + r) + e)

    return jax.tree.map(leaf, widen(found[0].nu))


def stability_ratio(
    sharpness: Array | float,
    learning_rate: Array | float,
    *,
    momentum: Array | float = 0.0,
    nesterov: bool = False,
    ema: bool = False,
) -> Array:
    """Sharpness over the largest that a quadratic's descent survives.

    On a quadratic of curvature λ the step diverges when the ratio passes 1:

    ==============================  =================================
    method, momentum b              ratio
    ==============================  =================================
    gradient descent                `lr λ / 2`
    `m = b m + g` (heavy ball)      `lr λ / (2 (1 + b))`
    the same with Nesterov          `lr λ (1 + 2 b) / (2 (1 + b))`
    `m = b m + (1 − b) g` (Adam)    the ratio above at `lr (1 − b)`
    ==============================  =================================

    Full-batch training of a network drives the ratio to 1 and keeps it there: the edge
    of stability. Adam's sharpness is that of the preconditioned Hessian.

    Args:
      sharpness: the largest eigenvalue, any shape.
      learning_rate: step size, of a shape that broadcasts with `sharpness`.
      momentum: `b`. Default 0.
      nesterov: whether the step looks ahead as `optax.trace(nesterov=True)` does.
      ema: whether momentum averages, as Adam's does, rather than accumulates.

    Returns:
      The ratio, float32 or the wider dtype of its arguments; negative where the loss is
      concave.

    Example:
      >>> round(float(stability_ratio(40.0, 0.05)), 6)
      1.0
      >>> round(float(stability_ratio(380.0, 0.1, momentum=0.9, ema=True)), 6)
      1.0

    References:
      Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of
      Stability, 2021 (https://arxiv.org/abs/2103.00065), section 2 and appendix B.
    """
    sharpness = jnp.asarray(sharpness)
    sharpness = sharpness.astype(jnp.promote_types(sharpness.dtype, jnp.float32))
    rate, b = (
        jnp.asarray(x).astype(sharpness.dtype) for x in (learning_rate, momentum)
    )
    rate = rate * (1 - b) if ema else rate
    rate = rate * (1 + 2 * b) if nesterov else rate
    return sharpness * rate / (2 * (1 + b))


def heavy_ball_optimum(
    largest: Array | float, smallest: Array | float
) -> tuple[Array, Array]:
    """The learning rate and momentum that descend a quadratic fastest.

    With curvatures between μ and L,

        lr = 4 / (√L + √μ)²,      momentum = ((√L − √μ) / (√L + √μ))²,

    every direction contracts by `√momentum` a step. Fed with the edges of a Hessian's
    spectrum during training, this sets both from curvature.

    Args:
      largest: L, any shape.
      smallest: μ, the smallest curvature that is to be descended.

    Returns:
      The learning rate and the momentum of `m = b m + g`; NaN where `smallest` is
      negative, for then no step size is optimal.

    Example:
      >>> [round(float(x), 4) for x in heavy_ball_optimum(9.0, 1.0)]
      [0.25, 0.25]

    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
      Granziol et al., Learning Rates as a Function of Batch Size: A Random Matrix
      Theory Approach to Neural Network Training, 2022
      (https://arxiv.org/abs/2006.09092), which reads both edges off a batch's Hessian.
    """
    high, low = (jnp.sqrt(jnp.asarray(x)) for x in (largest, smallest))
    return 4 / (high + low) ** 2, ((high - low) / (high + low)) ** 2


def _decompose(
    operator: Operator,
    params: Any,
    k: int,
    iterations: int,
    key: Array | None,
    raveled: bool,
) -> tuple[Tridiagonal, Ritz]:
    if not 1 <= k <= iterations:
        raise ValueError(f"k: {k}; it must lie between 1 and iterations={iterations}")
    start_key, restart_key = jax.random.split(jax.random.key(0) if key is None else key)
    start = random_like(start_key, params)
    if raveled:
        operator, start = ravel_operator(operator, params), ravel(start)
    tridiagonal = lanczos(operator, start, iterations, key=restart_key)
    return tridiagonal, ritz(tridiagonal)


def _pad(values: Array, k: int) -> Array:
    missing = max(0, k - values.size)
    return jnp.pad(values[:k], (0, missing), constant_values=jnp.nan)
