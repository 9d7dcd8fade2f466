r"""A step of fixed norm as three sums over a unit and an update.

With the sums :math:`\|w\|^2`, :math:`\langle w, u \rangle` and :math:`\|u\|^2` the norm
of what comes of a step is known before the step is made, and its result is
:math:`\alpha w + \beta u`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels._sweeps import Program, Sweep
from gnomon.kernels.fixed_norm.reference import (
    Options,
    Scalars,
    factor,
    radial,
    to_norm,
)


def program(options: Options) -> Program:
    """The step; arrays ``w`` and ``u``, and ``norm`` with one number a unit."""

    def products(blocks, totals, s):
        w, u = blocks["w"], blocks["u"]
        # The last tells an update that is not finite from one whose square overflows.
        return w * w, w * u, u * u, u * 0

    def update(blocks, totals, s):
        ww, wu, uu, nothing = totals
        norm = blocks["norm"]
        rate = factor(uu, norm, s, options)
        still = rate == 0
        dot = jnp.where(still, nothing, rate * wu)
        # Of what is added, by a root that does not overflow where the rate is large.
        added = jnp.square(rate * jnp.sqrt(uu))
        both = ww + jnp.where(still, nothing, added)
        if options.tangent:
            along = radial(dot, ww, norm)
            square = both - along * dot
        else:
            along = jnp.zeros_like(ww)
            square = both + 2 * dot
        # Infinite it is, whatever the sign of an infinite product.
        to = to_norm(jnp.where(both == jnp.inf, both, square), norm)
        return {"w": to * (1 - along) * blocks["w"] + to * rate * blocks["u"]}

    return Program(
        "fixed_norm", (Sweep(("w", "u"), 4, products),), update, writes=("w",)
    )


def step(
    run: Callable[..., dict[str, jax.Array]],
    w: jax.Array,
    u: jax.Array,
    norm: jax.Array,
    s: Scalars,
    options: Options,
    axes: tuple[int, ...],
    *,
    stack: tuple[int, ...] = (),
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> jax.Array:
    """One step, see :func:`gnomon.kernels.fixed_norm.step`, by what runs programs."""
    return run(
        program(options),
        {"w": w, "u": u},
        {"norm": norm},
        s,
        reduce=axes,
        stack=stack,
        key=key,
        sharding=sharding,
    )["w"]
