"""Adam's arithmetic, for the rules that have Adam inside of them."""

import jax
import jax.numpy as jnp

from gnomon.parameters.trees import safe_divide


def adam_direction(
    mu: jax.Array,
    nu: jax.Array,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    t: jax.Array,
) -> jax.Array:
    r"""Adam's direction, of its moments.

    .. math::
      \frac{\mu}{(1 - \beta_1^t) \big(\sqrt{\nu / (1 - \beta_2^t)} + \epsilon\big)}

    Args:
      mu: the first moment.
      nu: the second moment.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root.
      t: updates made, this one among them.

    Returns:
      The direction; zero where it would be a zero over a zero.
    """
    # What a traced b2 above 1 makes negative has no root.
    root = jnp.sqrt(jnp.maximum(safe_divide(nu, 1 - b2**t), 0))
    return safe_divide(mu, (1 - b1**t) * (root + eps))


def adam_step(
    g: jax.Array,
    mu: jax.Array,
    nu: jax.Array,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    t: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adam's direction of a gradient, and the moments with it in them.

    Args:
      g: the gradient.
      mu: the first moment before.
      nu: the second moment before.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root.
      t: updates made, this one among them.

    Returns:
      The direction, as of :func:`adam_direction`, and both moments.
    """
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * jnp.square(g)
    return adam_direction(mu, nu, b1, b2, eps, t), mu, nu
