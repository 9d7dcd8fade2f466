r"""A step of fixed norm as sums over a unit and an update.

A point that is known from the start, :math:`w + \rho u`, is squared as it is summed.
Others hang on sums of their own. From :math:`\|w\|^2`, :math:`\langle w, v \rangle` and
:math:`\|v\|^2` their norm is known too, but loses its digits where they nearly cancel,
or where the squares underflow; there the point itself is squared, in one more sweep.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.engine.program import Program, Sweep
from gnomon.kernels.fixed_norm.reference import (
    Options,
    Scalars,
    factor,
    has_norm,
    radial,
    to_norm,
)

# Of the squares of weight and update, the share that has to be left of their sum.
SHARE = 0.25
# A square below the least normal number, 1.2e-38, is lost; so is a sum of 1e8 of them,
# to rounding, where what is left is larger than this.
LEAST = 1e-24


def program(options: Options) -> Program:
    """The step; arrays ``w`` and ``u``, and ``norm`` with one number a unit."""
    return _of_sums(options) if options.turns or options.tangent else _plain()


def _plain() -> Program:
    """The step to a point that hangs on no sum."""

    def moved(blocks, s):
        return blocks["w"] + s.rate * blocks["u"]

    def update(blocks, totals, s):
        return {"w": moved(blocks, s) * to_norm(totals[0], blocks["norm"])}

    squares = Sweep(
        ("w", "u"), 1, lambda blocks, totals, s: (jnp.square(moved(blocks, s)),)
    )
    return Program("fixed_norm", (squares,), update, writes=("w",))


def _of_sums(options: Options) -> Program:
    """The step by an angle, or along the tangent, of which sums have to be known."""

    def added(blocks, s):
        return blocks["u"] if options.turns else s.rate * blocks["u"]

    def products(blocks, totals, s):
        w, v = blocks["w"], added(blocks, s)
        # The last tells an update that is not finite from one whose square overflows.
        return w * w, w * v, v * v, v * 0

    def parts(blocks, totals, s):
        """The factor on what is added, its product with ``w``, its part along it."""
        ww, wv, vv, nothing = totals[:4]
        norm = blocks["norm"]
        scale = factor(vv, norm, s, options) if options.turns else jnp.ones_like(vv)
        dot = jnp.where(scale == 0, nothing, scale * wv)
        along = radial(dot, ww, norm) if options.tangent else jnp.zeros_like(ww)
        return scale, dot, along

    def moved(blocks, totals, s):
        scale, _, along = parts(blocks, totals, s)
        return blocks["w"] * (1 - along) + added(blocks, s) * scale

    def composed(blocks, totals, s):
        """The square of the point from those of its parts, and whether it holds."""
        ww, _, vv, _ = totals[:4]
        scale, dot, along = parts(blocks, totals, s)
        # By a root that does not overflow where the factor is large.
        both = ww + jnp.square(scale * jnp.sqrt(vv))
        square = both - along * dot if options.tangent else both + 2 * dot
        normal = (both >= LEAST * (1 + scale * scale)) & (both < jnp.inf)
        return square, normal & (square > SHARE * both)

    def needed(blocks, totals, s):
        _, holds = composed(blocks, totals, s)
        return has_norm(blocks["norm"]) & ~holds

    def update(blocks, totals, s):
        square, holds = composed(blocks, totals, s)
        square = jnp.where(holds, square, totals[4])
        return {"w": moved(blocks, totals, s) * to_norm(square, blocks["norm"])}

    reads = ("w", "u")
    sweeps = (
        Sweep(reads, 4, products),
        Sweep(
            reads,
            1,
            lambda blocks, totals, s: (jnp.square(moved(blocks, totals, s)),),
            needed,
        ),
    )
    return Program("fixed_norm", sweeps, update, writes=("w",))


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
