r"""A step of fixed norm as three sums over a unit and an update.

With the sums :math:`\|w\|^2`, :math:`\langle w, u \rangle` and :math:`\|u\|^2` the norm
of what comes of a step is known before the step is made, and its result is
:math:`\alpha w + \beta u`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels._rows import inverse_root
from gnomon.kernels._sweeps import Program, Sweep
from gnomon.kernels.fixed_norm.reference import Options, Scalars, factor


def program(options: Options) -> Program:
    """The step; arrays ``w`` and ``u``, and ``norm`` with one number a unit."""

    def products(blocks, totals, s):
        w, u = blocks["w"], blocks["u"]
        return w * w, w * u, u * u

    def update(blocks, totals, s):
        ww, wu, uu = totals
        norm = blocks["norm"]
        rate = factor(uu, norm, s, options)
        dot = rate * wu
        if options.tangent:
            # A unit without a norm to keep is free, its radial part with it.
            bound = (ww > 0) & (norm > 0)
            radial = dot * jnp.where(bound, 1 / jnp.where(bound, ww, 1), 0)
            square = ww + rate * rate * uu - radial * dot
        else:
            radial = jnp.zeros_like(ww)
            square = ww + 2 * dot + rate * rate * uu
        to = jnp.where(norm > 0, norm * inverse_root(square), 1)
        return {"w": to * (1 - radial) * blocks["w"] + to * rate * blocks["u"]}

    return Program(
        "fixed_norm", (Sweep(("w", "u"), 3, products),), update, writes=("w",)
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
