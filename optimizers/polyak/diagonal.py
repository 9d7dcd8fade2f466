"""Diagonal metrics for SANIA: squared gradients without the root, and curvature."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.curvature import hessian_product
from gnomon.optimizers.mechanisms.draws import draw
from gnomon.optimizers.mechanisms.leafwise import (
    WIDE,
    Hyperparameters,
    Leafwise,
    leafwise,
)
from gnomon.parameters.checks import require_params, require_within
from gnomon.parameters.trees import safe_divide

__all__ = [
    "ScaleByDiagonalState",
    "scale_by_adagrad_sqr",
    "scale_by_adam_sqr",
    "scale_by_hutchinson",
]


class ScaleByDiagonalState(NamedTuple):
    """State of the preconditioners that are diagonals built up over the steps."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    diagonal: optax.Updates  # sum or average, in float32 or wider


def scale_by_adagrad_sqr(
    eps: jax.typing.ArrayLike = 0.1,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaGrad's metric without its square root: :math:`g / \max(\epsilon, \sum g^2)`.

    The first step with ``eps=0`` is :math:`1/g` in every coordinate: this is what makes
    it invariant to the scale of features, and what makes small gradients dangerous.

    Args:
      eps: floor of the sum, default 0.1, the authors' choice; 0 for exact invariance.

    Returns:
      The transform, ascent-signed; a preconditioner for :func:`sania`.

    Raises:
      ValueError: if ``eps`` is not one number or out of range.

    Example:
      >>> squares = scale_by_adagrad_sqr(eps=0.1)
      >>> grads = jnp.array([0.1, 1.0, 2.0])
      >>> print(squares.update(grads, squares.init(grads))[0])
      [1.  1.  0.5]
    """

    def accumulate(
        h: Hyperparameters, total: jax.Array, grad: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        total = total + jnp.square(grad)
        return total, total

    numbers = {"[0, inf)": dict(eps=eps)}
    return _scale_by_diagonal("scale_by_adagrad_sqr", accumulate, numbers)


def scale_by_adam_sqr(
    b2: jax.typing.ArrayLike = 0.999, eps: jax.typing.ArrayLike = 0.1
) -> optax.GradientTransformationExtraArgs:
    r"""Adam's metric without its square root: :math:`g / \max(\epsilon, \hat v)`.

    Args:
      b2: decay of the second moment :math:`v`, default 0.999.
      eps: floor of the bias-corrected :math:`\hat v = v / (1 - \beta_2^t)`, default
        0.1, the authors' choice; 0 for exact invariance to the scale of features.

    Returns:
      The transform, ascent-signed; a preconditioner for :func:`sania`.

    Raises:
      ValueError: if a hyperparameter is not one number or out of range.

    Example:
      >>> squares = scale_by_adam_sqr(eps=0.1)
      >>> grads = jnp.array([0.1, 1.0, 2.0])
      >>> print(squares.update(grads, squares.init(grads))[0])
      [1.  1.  0.5]

    Differences:
      As in the authors' code, and unlike in Adam, gradients are not averaged.
    """

    def accumulate(
        h: Hyperparameters, average: jax.Array, grad: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return _corrected_average(h, average, jnp.square(grad))

    numbers = {"[0, 1)": dict(b2=b2), "[0, inf)": dict(eps=eps)}
    return _scale_by_diagonal("scale_by_adam_sqr", accumulate, numbers)


def scale_by_hutchinson(
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 0.1,
    *,
    seed: jax.typing.ArrayLike = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""The metric of the Hessian's diagonal: :math:`g / \max(\epsilon, |\hat D|)`.

    :math:`D \leftarrow \beta_2 D + (1 - \beta_2)\, z \odot H z` averages Hutchinson's
    estimate with a fresh vector :math:`z` of random signs at each step, and
    :math:`\hat D = D / (1 - \beta_2^t)`. Each step costs one Hessian-vector product,
    about two more gradients.

    Args:
      b2: decay of the average, default 0.999.
      eps: floor of the diagonal, default 0.1.
      seed: seed of the random signs, an integer, default 0.

    Returns:
      The transform, ascent-signed; a preconditioner for :func:`sania`. It needs
      ``params`` in ``update``, and the gradient or the loss as a function of the
      parameters alone: the extra arg ``grad_fn``, or else ``obj_fn`` or ``value_fn``.

    Raises:
      ValueError: if ``params`` or all of the functions are missing, or a hyperparameter
        is not one number or out of range.

    Example:
      >>> loss = lambda w: jnp.sum(jnp.array([1.0, 10.0]) * w**2)
      >>> hutchinson = scale_by_hutchinson()
      >>> w = jnp.array([1.0, 1.0])
      >>> grads, state = jax.grad(loss)(w), hutchinson.init(w)
      >>> print(hutchinson.update(grads, state, w, obj_fn=loss)[0])
      [1. 1.]

    Differences:
      ``optax.contrib.hutchinson_estimator_diag_hessian`` draws the same signs in every
      run unless it is given a key, and fails on trees of mixed dtypes.
    """
    require_within("[0, 4294967295]", seed=seed, whole=True)
    if isinstance(seed, float):
        seed = int(seed)

    def estimate(
        updates: optax.Updates,
        count: jax.Array,
        params: optax.Params | None,
        extra_args: Mapping[str, Any],
    ) -> tuple[optax.Updates]:
        require_params(params, "scale_by_hutchinson")
        key = jax.random.fold_in(jax.random.key(seed), count)
        signs = draw(key, params, jax.random.rademacher)
        product = hessian_product("scale_by_hutchinson", extra_args)(params, signs)
        return (jax.tree.map(lambda h, z: h * z.astype(h.dtype), product, signs),)

    numbers = {"[0, 1)": dict(b2=b2), "[0, inf)": dict(eps=eps)}
    return _scale_by_diagonal(
        "scale_by_hutchinson", _corrected_average, numbers, estimate
    )


def _corrected_average(
    h: Hyperparameters, average: jax.Array, sample: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The new exponential average, and the same corrected for its start at zero."""
    average = h.b2 * average + (1 - h.b2) * sample
    return average, safe_divide(average, 1 - h.b2**h.t)


def _scale_by_diagonal(
    name: str,
    accumulate: Callable[
        [Hyperparameters, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
    ],
    hyperparameters: Mapping[str, Mapping[str, jax.typing.ArrayLike]],
    estimate: Callable[..., Sequence[Any]] | None = None,
) -> Leafwise:
    """Divides by a diagonal that ``accumulate`` builds from samples, floored at eps.

    ``accumulate(h, diagonal, sample)`` returns what to keep and what to divide by; the
    samples are the gradients, or what ``estimate`` makes of the update's arguments.
    """

    def rule(
        h: Hyperparameters,
        g: jax.Array,
        w: None,
        diagonal: jax.Array,
        sample: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        kept, used = accumulate(h, diagonal, g if sample is None else sample)
        floored = jnp.maximum(jnp.abs(used), h.eps)
        # Zero only without eps, where no gradient was seen: then s = 0.
        return g / jnp.where(floored > 0, floored, 1), kept

    return leafwise(
        name,
        rule,
        ScaleByDiagonalState,
        (WIDE,),
        hyperparameters,
        further=estimate,
        needs_params=False,
    )
