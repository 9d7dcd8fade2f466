"""How far results lie from the definition in float64."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gnomon.kernels.cases import Case
from gnomon.kernels.companding import LEVELS, Coded, decode, encode

# Largest relative error, in the Euclidean norm of each result, by dtype of the input.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-7}
# A number takes one of its two neighboring codes; rounding in float32 adds a little.
CODES = 1.001
# What float32 may lose of a moment, of the largest in its block.
LOST = 2.0**-20


def draw(case: Case, seed: int) -> list[jax.Array]:
    """Inputs of a case, made of fresh normal numbers."""
    keys = jax.random.split(jax.random.key(seed), len(case.normals))
    normals = [
        jax.random.normal(key, x.shape, x.dtype)
        for key, x in zip(keys, case.normals, strict=True)
    ]
    return list(jax.jit(case.make)(*normals))


def exact(case: Case, inputs: Sequence[jax.Array]) -> list[jax.Array]:
    """What the definition gives in float64, moments not coded."""
    function = functools.partial(case.plain or case.function, implementation="xla")
    if case.plain:
        w, g, *coded = inputs
        moments = (Coded(*coded[i : i + 2]) for i in (0, 2))
        inputs = (w, g, *map(jax.jit(decode), moments))
    with jax.enable_x64(True):
        wide = [x.astype(jnp.float64) for x in wherever_exact(inputs)]
        return jax.tree.leaves(jax.jit(function)(*wide))


def wherever_exact(arrays: Any) -> Any:
    """Arrays on a device that computes in float64: the GPU, or the host."""
    if jax.default_backend() == "gpu":
        return arrays
    return jax.device_put(arrays, jax.devices("cpu")[0])


def compare(
    case: Case, got: Sequence[jax.Array], want: Sequence[jax.Array]
) -> dict[str, float]:
    """Errors of a case's results.

    Args:
      case: the case.
      got: the results of an implementation.
      want: those of :func:`exact`.

    Returns:
      ``error``, the distance of a result over its length, the worst one; of coded
      moments that of the scales. For those also ``codes``, see :func:`code_distance`.
    """
    got = wherever_exact(list(got))
    if not case.plain:
        return {"error": max(map(relative, got, want))}
    w, *coded = got
    moments = [Coded(*coded[i : i + 2]) for i in (0, 2)]
    errors, codes = [relative(w, want[0])], []
    for moment, x in zip(moments, want[1:], strict=True):
        dtype = moment.codes.dtype.name
        scales = jax.jit(encode, static_argnums=1)(x.astype(jnp.float32), dtype).scales
        errors.append(relative(moment.scales, scales))
        codes.append(code_distance(moment, x))
    return {"error": max(errors), "codes": max(codes)}


def relative(got: jax.Array, want: jax.Array) -> float:
    """The distance between two arrays over the length of the second."""
    with jax.enable_x64(True):
        return float(_relative(got, want))


@jax.jit
def _relative(got, want):
    got, want = (x.astype(jnp.float64).reshape(-1) for x in (got, want))
    length = jnp.maximum(jnp.linalg.norm(want), 1e-30)
    return jnp.linalg.norm(got - want) / length


def code_distance(coded: Coded, x: jax.Array) -> float:
    """How many codes lie between those of an array and its numbers, at most.

    Args:
      coded: the array, coded.
      x: its numbers in float64, known to 2**-20 of the largest in a block.

    Returns:
      At most one where every number took one of its two neighbors.
    """
    levels = LEVELS[coded.codes.dtype.name]
    # The largest code stands for the scale.
    scale = decode(Coded(jnp.full_like(coded.codes, levels), coded.scales))
    with jax.enable_x64(True):
        return float(_code_distance(coded.codes, scale, x, levels))


@functools.partial(jax.jit, static_argnums=3)
def _code_distance(codes, scale, x, levels):
    part = x / scale.astype(jnp.float64)
    low, high = (
        jnp.sign(end) * levels * jnp.sqrt(jnp.sqrt(jnp.abs(end)))
        for end in (part - LOST, part + LOST)
    )
    codes = codes.astype(jnp.float64)
    return jnp.max(jnp.maximum(low - codes, codes - high))


def wrong(row: Mapping[str, Any]) -> bool:
    """Whether the results of a row of the table miss the definition."""
    error, codes = row.get("error", 0.0), row.get("codes", 0.0)
    return not (error <= TOLERANCE[row["dtype"]] and codes <= CODES)
