"""The last link of an optimizer: a step against the direction."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_within
from gnomon.parameters.trees import compute_dtype


class DescendState(NamedTuple):
    """State of :func:`descend`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def descend(learning_rate: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate.

    Behind a direction it makes a complete optimizer, as every wrapper takes one:
    ``lawn(optax.chain(optax.scale_by_adam(), descend(1e-3)), free_steps=100)``.

    Unlike ``optax.scale_by_learning_rate`` the product is taken in float32 and rounded
    once to the dtype of the update, so a float32 learning rate, traced or not, leaves
    bfloat16 updates in bfloat16 and is itself not rounded. The state is the same for
    a number and for a schedule.

    Args:
      learning_rate: a scalar, a 0-d array or tracer, or a schedule.

    Returns:
      The transform.

    Raises:
      ValueError: if ``learning_rate`` is not one number or out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> step = descend(0.1)
      >>> updates = jnp.array([1.0, -2.0])
      >>> print(step.update(updates, step.init(updates))[0])
      [-0.1  0.2]
    """
    require_within("[0, inf)", learning_rate=learning_rate)

    def init_fn(params):
        del params
        return DescendState(count=jnp.zeros([], jnp.int32))

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        rate = at_step("learning_rate", learning_rate, state.count)

        def scale(update):
            dtype = compute_dtype(update.dtype)
            scaled = -jnp.asarray(rate, dtype) * update.astype(dtype)
            return scaled.astype(update.dtype)

        updates = jax.tree.map(scale, updates)
        return updates, DescendState(count=optax.safe_increment(state.count))

    return transformation("descend", init_fn, update_fn, complex_leaves=True)
