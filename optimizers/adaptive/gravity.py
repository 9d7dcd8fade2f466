"""Gravity: momentum of gradients that are damped where they are largest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.descent import Decay, descend
from gnomon.optimizers.mechanisms.draws import draw
from gnomon.optimizers.mechanisms.leafwise import Hyperparameters, leafwise
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_within
from gnomon.parameters.trees import compute_dtype, safe_divide

__all__ = ["ScaleByGravityState", "gravity", "scale_by_gravity"]

RECOMMENDED = {"gravity": dict(learning_rate=0.1, alpha=0.01, beta=0.9)}


class ScaleByGravityState(NamedTuple):
    """State of :func:`scale_by_gravity`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    velocity: optax.Updates  # in accumulator_dtype or the dtype of the parameters


def scale_by_gravity(
    beta: jax.typing.ArrayLike = 0.9,
    *,
    initial_std: jax.typing.ArrayLike = 0.1,
    seed: jax.typing.ArrayLike = 0,
    stacked: str | None = None,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`gravity`, ascent-signed and before the learning rate.

    Args:
      beta: see :func:`gravity`, as all arguments but the next.
      initial_std: standard deviation of the first velocities, default 0.1.
      seed: seed of the first velocities.
      stacked: regex of the leaves that stack layers along axis 0.
      accumulator_dtype: dtype of the velocity.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or ``stacked`` matches no leaf.
    """
    require_within("[0, 4294967295]", seed=seed, whole=True)
    key_of = int(seed) if isinstance(seed, float) else seed

    def initial(params: optax.Params) -> tuple[optax.Params]:
        normals = draw(jax.random.key(key_of), params, _normal, stacked)
        # On the zeros, so that the velocity lies where the parameter lies.
        scaled = lambda w, z: (  # noqa: E731
            jnp.zeros_like(w, dtype=z.dtype) + jnp.asarray(initial_std, z.dtype) * z
        )
        return (jax.tree.map(scaled, params, normals),)

    def rule(
        h: Hyperparameters, g: jax.Array, w: jax.Array, velocity: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        largest = jnp.max(
            jnp.abs(g), axis=h.axes.layer(g.ndim).reduce, keepdims=True, initial=0
        )
        damped = g / (1 + jnp.square(largest * g))
        average = (h.beta * h.t + 1) / (h.t + 2)
        velocity = average * velocity + (1 - average) * damped
        return velocity, velocity

    return leafwise(
        "gravity",
        rule,
        ScaleByGravityState,
        (accumulator_dtype,),
        {"[0, 1]": dict(beta=beta), "[0, inf)": dict(initial_std=initial_std)},
        stacked=stacked,
        initial=initial,
    )


def _normal(
    key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> jax.Array:
    return jax.random.normal(key, shape, compute_dtype(dtype))


def gravity(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: jax.typing.ArrayLike = 0.01,
    beta: jax.typing.ArrayLike = 0.9,
    seed: jax.typing.ArrayLike = 0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    decay: Decay = "scaled",
    stacked: str | None = None,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gravity: a weight rolls downhill, and the steepest places pull least.

    .. math::
      z &= \frac{g}{1 + (k g)^2}, \qquad k = \max |g|, \qquad
      \hat\beta = \frac{\beta t + 1}{t + 2} \\
      V &\leftarrow \hat\beta V + (1 - \hat\beta) z, \qquad
      w \leftarrow (1 - \eta \lambda) w - \eta V

    The largest gradient of a leaf, :math:`k`, sets where damping begins: no
    :math:`|z|` exceeds :math:`1 / (2k)`. The velocity starts at random, normal with
    standard deviation :math:`\alpha / \eta`, so that the first step moves weights by
    about :math:`\alpha / 2`; the average is then fast, and slows down to
    :math:`\beta`.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule; 0.1 in the paper.
        The first velocities are drawn for its first value, and are zero where that is.
      alpha: size :math:`\alpha` of the first velocities, default 0.01.
      beta: decay of the velocity in the long run, default 0.9.
      seed: seed of the first velocities, an integer, default 0.
      weight_decay: decoupled weight decay :math:`\lambda`, a scalar or a schedule,
        default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      decay: the convention of weight decay, ``"scaled"`` as above, ``"independent"``
        of the learning rate, or ``"cautious"``, see
        :func:`gnomon.optimizers.descend`.
      stacked: regex of the leaves that stack layers along axis 0 (scanned layers); each
        layer has a :math:`k` of its own.
      accumulator_dtype: dtype of the velocity, default that of the parameters.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``decay`` is unknown, or ``stacked`` matches no leaf.

    Example:
      Ten times the gradient pulls a tenth as much:

      >>> import jax.numpy as jnp
      >>> optimizer, w = gravity(1.0, alpha=0.0), jnp.zeros(1)
      >>> for g in (0.1, 10.0, 100.0):
      ...     updates, _ = optimizer.update(jnp.full(1, g), optimizer.init(w), w)
      ...     print(f"{updates[0]:.4f}", end=" ")
      -0.0367 -0.0004 -0.0000

    References:
      Bahrami and Pouriyan Zadeh, `Gravity Optimizer: a Kinematic Approach on
      Optimization in Deep Learning <https://arxiv.org/abs/2101.09192>`_, 2021

    Differences:
      The paper divides the gradient by :math:`1 / k`, which a zero gradient turns into
      a division by zero; the product is the same and has none. Steps are counted from 1
      as in the authors' PyTorch version; their Keras version counts from 0. Weight
      decay is an addition.
    """
    step = descend(
        learning_rate,
        weight_decay,
        weight_decay_mask=weight_decay_mask,
        decay=decay,
        stacked=stacked,
        name="gravity",
    )
    require_within("[0, inf)", alpha=alpha)
    first = at_step("learning_rate", learning_rate, jnp.zeros([], jnp.int32))
    initial_std = safe_divide(jnp.asarray(alpha, float), jnp.asarray(first, float))
    scaling = scale_by_gravity(
        beta,
        initial_std=initial_std,
        seed=seed,
        stacked=stacked,
        accumulator_dtype=accumulator_dtype,
    )
    return optax.chain(scaling, step)
