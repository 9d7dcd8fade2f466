"""Adam's step on a leaf, and AdamP's last pass, by what runs programs."""

from collections.abc import Callable, Sequence

import jax
from jax.sharding import NamedSharding

from gnomon.kernels.adam._program import program
from gnomon.kernels.adam.reference import Moved, Scalars


def step(
    run: Callable[..., dict[str, jax.Array]],
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    *,
    nesterov: bool = False,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    reduce: Sequence[int] = (),
    stack: Sequence[int] = (),
    units: Sequence[jax.Array] | None = None,
    whole: bool = False,
) -> Moved:
    """One step, see :func:`gnomon.kernels.adam.step`.

    Args:
      run: runs a program on a leaf, on one platform.
      w: the parameter.
      g: the gradient.
      m: the first moment.
      v: the second moment.
      s: scalars of the step.
      nesterov: look ahead by one step of momentum.
      key: a key for stochastic rounding.
      sharding: how the four arrays lie on a mesh.
      reduce: axes inside one unit.
      stack: axes over layers.
      units: a coefficient of ``w`` for every unit, in place of the weight decay, and
        the factor on ``<p, w>`` to take off it, of the leaf's rank.
      whole: whether ``<p, w>`` is found on the chip; if not, the factor is not read.

    Returns:
      The leaf after the step.
    """
    names = ("decay", "factor") if whole else ("decay",)
    moved = run(
        program(nesterov=nesterov, units=units is not None, whole=whole),
        {"w": w, "g": g, "m": m, "v": v},
        dict(zip(names, units or (), strict=False)),
        s,
        reduce=reduce,
        stack=stack,
        key=key,
        sharding=sharding,
    )
    return Moved(**moved)
