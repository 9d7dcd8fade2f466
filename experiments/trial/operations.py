"""FLOPs of a traced program, counted by a rule that does not depend on a compiler.

A multiply-add of a matrix product or a convolution is two. Any other operation that
gives floating numbers is one a number, a reduction one a number that it is given;
moving numbers, casting them and drawing them is none, as is what a Pallas kernel does.
A loop counts as often as it runs, or once where only the device knows, and a condition
by the branch that costs most; a program that is given to devices counts on each.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

# What moves or makes numbers without arithmetic.
_FREE = """
broadcast_in_dim reshape transpose squeeze expand_dims rev copy copy_p iota
slice dynamic_slice dynamic_update_slice concatenate split pad gather scatter select_n
convert_element_type bitcast_convert_type reduce_precision stop_gradient
sharding_constraint device_put optimization_barrier pvary pcast pallas_call
random_bits random_wrap random_unwrap random_split random_fold_in random_seed
threefry2x32 rng_bit_generator
"""
FREE = frozenset(_FREE.split())


def operations(jaxpr: Any, times: float = 1) -> Iterator[tuple[str, float]]:
    """The operations of a program, each with its FLOPs.

    Args:
      jaxpr: the program, as `jax.make_jaxpr(f)(...).jaxpr`.
      times: how often it runs.

    Example:
      >>> import jax
      >>> def f(x):
      ...     return jax.lax.fori_loop(0, 3, lambda i, y: y @ x, x).sum()
      >>> program = jax.make_jaxpr(f)(jnp.ones((4, 4)))
      >>> [found for found in operations(program.jaxpr) if found[1]]
      [('dot_general', 384.0), ('reduce_sum', 16.0)]
    """
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inner = [] if name in FREE else list(jaxprs_in_params(eqn.params))
        if name == "cond":
            branches = [list(operations(branch, times)) for branch in inner]
            yield from max(branches, key=lambda found: sum(n for _, n in found))
        elif inner and not name.startswith(("reduce", "scatter", "cum", "arg")):
            again = _times(eqn)
            for program in inner:
                yield from operations(program, times * again)
        else:
            yield name, times * _flops(eqn)


def flops_in(jaxpr: Any) -> float:
    """All FLOPs of a program."""
    return sum(flops for _, flops in operations(jaxpr))


def _times(eqn: Any) -> int:
    """How often the programs of an operation run."""
    if eqn.primitive.name == "scan":
        return int(eqn.params["length"])
    if eqn.primitive.name == "shard_map":
        sizes, axes = eqn.params["mesh"].shape, eqn.params["newly_manual_axes"]
        return math.prod(sizes[axis] for axis in axes)
    return 1


def _flops(eqn: Any) -> float:
    name, given = eqn.primitive.name, eqn.outvars[0].aval
    if name in FREE or not jnp.issubdtype(given.dtype, jnp.inexact):
        return 0.0
    size = float(math.prod(given.shape))
    if name == "dot_general":
        ((contracted, _), _) = eqn.params["dimension_numbers"]
        left = eqn.invars[0].aval.shape
        return 2.0 * size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * size * math.prod(kernel) / outputs
    if name.startswith("reduce"):
        return float(math.prod(eqn.invars[0].aval.shape))
    return size
