"""Diagonal metrics for SANIA: squared gradients without the root, and curvature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.curvature import hessian_product
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_params, require_within
from gnomon.parameters.stacks import Stacks
from gnomon.parameters.trees import compute_dtype, map_leaves, safe_divide


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
    require_within("[0, inf)", eps=eps)

    def accumulate(total, grad, count):
        del count
        total = total + jnp.square(grad)
        return total, total

    return _scale_by_diagonal("scale_by_adagrad_sqr", accumulate, eps)


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
    require_within("[0, 1)", b2=b2)
    require_within("[0, inf)", eps=eps)
    return _scale_by_diagonal(
        "scale_by_adam_sqr",
        lambda v, grad, count: _corrected_average(v, jnp.square(grad), b2, count),
        eps,
    )


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
    require_within("[0, 1)", b2=b2)
    require_within("[0, inf)", eps=eps)
    require_within("[0, 4294967295]", seed=seed, whole=True)
    if isinstance(seed, float):
        seed = int(seed)

    def estimate(updates, count, params, extra_args):
        del updates
        require_params(params, "scale_by_hutchinson")
        # Drawn layer by layer, so that stacked layers get the signs of a list of them.
        layers = Stacks(params)
        leaves, treedef = jax.tree.flatten(layers.unstack(params))
        keys = jax.random.split(
            jax.random.fold_in(jax.random.key(seed), count), max(len(leaves), 1)
        )
        signs = [
            jax.random.rademacher(key, w.shape, w.dtype)
            for key, w in zip(keys, leaves, strict=False)
        ]
        signs = layers.restack(jax.tree.unflatten(treedef, signs))
        product = hessian_product("scale_by_hutchinson", extra_args)(params, signs)
        return map_leaves(lambda h, z: (h * z.astype(h.dtype),), product, (), signs)[0]

    return _scale_by_diagonal(
        "scale_by_hutchinson",
        lambda d, sample, count: _corrected_average(d, sample, b2, count),
        eps,
        estimate,
    )


def _corrected_average(average, sample, b2, count):
    """The new exponential average, and the same corrected for its start at zero."""
    beta = jnp.asarray(b2, average.dtype)
    average = beta * average + (1 - beta) * sample
    return average, safe_divide(average, 1 - beta ** count.astype(average.dtype))


def _scale_by_diagonal(name, accumulate, eps, estimate=None):
    """Divides by a diagonal that ``accumulate`` builds from samples, floored at eps.

    ``accumulate(diagonal, sample, count)`` returns what to keep and what to divide by;
    the samples are the gradients, or what ``estimate`` makes of the update's arguments.
    """

    def init_fn(params):
        diagonal = jax.tree.map(
            lambda w: jnp.zeros_like(w, dtype=compute_dtype(w.dtype)), params
        )
        return ScaleByDiagonalState(jnp.zeros([], jnp.int32), diagonal)

    def update_fn(updates, state, params=None, **extra_args):
        count = optax.safe_increment(state.count)
        samples = updates
        if estimate is not None:
            samples = estimate(updates, count, params, extra_args)

        def rule(grad, diagonal, sample):
            kept, used = accumulate(diagonal, sample.astype(diagonal.dtype), count)
            floored = jnp.maximum(jnp.abs(used), jnp.asarray(eps, used.dtype))
            # Zero only without eps, where no gradient was seen: then s = 0.
            safe = jnp.where(floored > 0, floored, 1)
            return (grad.astype(safe.dtype) / safe).astype(grad.dtype), kept

        updates, diagonal = map_leaves(rule, updates, (state.diagonal,), samples)
        return updates, ScaleByDiagonalState(count, diagonal)

    return transformation(name, init_fn, update_fn)
