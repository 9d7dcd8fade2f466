"""Which axes form one output unit, and norms, projections and retractions over them.

A *unit* is the part of a parameter that feeds one output: a column of a dense kernel,
a filter of a convolution, a row of an embedding. Methods that control weight norms act
on units, so every one of them needs to know which axes of a leaf to reduce over. Flax
puts outputs last, embeddings put rows first and attention kernels have several output
axes, so the answer depends on the leaf; it is decided here, once, from the leaf's path
and shape, and ordered ``(regex, axes)`` rules override it.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.parameters.paths import BOXES, path_string
from gnomon.parameters.stacks import matches, stack_of
from gnomon.parameters.trees import compute_dtype


class Axes(NamedTuple):
    """How the axes of one leaf divide; axes in neither field index the units.

    A dense kernel ``(in, out)`` is ``Axes(reduce=(0,))``: ``out`` units of ``in``
    numbers. The same kernel stacked over layers, ``(layers, in, out)``, is
    ``Axes(reduce=(1,), stack=(0,))``: a view of "the whole layer" then reduces axes 1
    and 2 and never mixes layers.
    """

    reduce: tuple[int, ...] = ()  # axes inside one unit; () when the leaf has no units
    stack: tuple[int, ...] = ()  # axes that index independent layers, never reduced

    def layer(self, ndim: int) -> "Axes":
        """The coarser view in which one whole layer is a single unit."""
        kept = {axis % ndim for axis in self.stack}
        return Axes(tuple(a for a in range(ndim) if a not in kept), self.stack)


AxesLike = Axes | Sequence[int] | int
# Axes, or a function from the rank of one layer's leaf to them.
Rules = Sequence[tuple[str, AxesLike | Callable[[int], AxesLike]]]


def outputs_first(ndim: int) -> tuple[int, ...]:
    """The axes inside one unit of a kernel that has its outputs on axis 0.

    Example:
      >>> outputs_first(2), outputs_first(4), outputs_first(1)
      ((1,), (1, 2, 3), ())
    """
    return tuple(range(1, ndim))


# Rules for modules that call a kernel ``weight`` and put its outputs first, as Equinox
# (and PyTorch) do; their embeddings, rows first, are right under the same rule.
OUTPUTS_FIRST: Rules = ((r"(^|/)weight$", outputs_first),)

# Leaves with one number a unit whatever their rank, such as an attention bias of shape
# (heads, head_dim).
_PER_UNIT = re.compile(r"^(bias|scale|.*_(bias|scale))$")
_EMBEDDING = re.compile(r"^(.*_)?embeddings?$")
# Projections with several output axes, (in, heads, head_dim).
_INTO_HEADS = re.compile(r"^(query|key|value|qkv|kv|[qkv])(_proj)?$")


def unit_axes(path: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The axes inside one unit of a Flax parameter.

    ========================================  ==========================  ============
    parameter                                 shape                       reduced axes
    ========================================  ==========================  ============
    Dense ``kernel``                          (in, out)                   0
    Conv, ConvTranspose ``kernel``            (height, width, in, out)    0, 1, 2
    Embed ``embedding``                       (rows, features)            1
    attention query, key, value ``kernel``    (in, heads, head_dim)       0
    attention out ``kernel``                  (heads, head_dim, out)      0, 1
    any other leaf of rank two or more        (..., out)                  all but last
    biases, scales, leaves of rank 0 and 1                                none
    ========================================  ==========================  ============

    A transposed convolution with ``transpose_kernel=True`` and a ``DenseGeneral`` with
    several output axes outside attention cannot be told from their path and shape: give
    :func:`resolve_axes` a rule for them.

    Args:
      path: names from the root to the leaf, joined by ``/``.
      shape: shape of one layer's leaf, without a stacked layer axis.

    Returns:
      The axes to reduce over; ``()`` when the leaf has no units.

    Example:
      >>> unit_axes("mlp/kernel", (64, 128))
      (0,)
      >>> unit_axes("embed/embedding", (256, 64))
      (1,)
      >>> unit_axes("attention/query/kernel", (64, 4, 16))
      (0,)
      >>> unit_axes("attention/query/bias", (4, 16))
      ()
    """
    names = [name for name in path.split("/") if name]
    # A path that was joined by hand may still end in a box's attribute.
    if len(names) > 1 and names[-1] in BOXES:
        names.pop()
    leaf = names[-1] if names else ""
    module = names[-2] if len(names) > 1 else ""
    ndim = len(shape)
    if ndim < 2 or _PER_UNIT.match(leaf):
        return ()
    if _EMBEDDING.match(leaf):
        return (ndim - 1,)
    if ndim > 2 and _INTO_HEADS.match(module):
        return (0,)
    return tuple(range(ndim - 1))


def resolve_axes(
    params: optax.Params, rules: Rules | None = None, stacked: str | None = None
) -> Any:
    """The :class:`Axes` of every leaf, as a tree with the structure of ``params``.

    The first rule whose regex is found (``re.search``) in a leaf's path decides; leaves
    that no rule claims follow :func:`unit_axes`. That layers are stacked in one leaf
    (``nnx.vmap``, ``nn.scan``) cannot be seen in a shape: the leaf's names say it
    (:mod:`gnomon.parameters.stacks`), or ``stacked`` does.

    Args:
      params: a tree of arrays or ``jax.ShapeDtypeStruct``; ``None`` and ``MaskedNode``
        stay as they are.
      rules: ordered ``(regex, axes)`` pairs. ``axes`` are the axes to reduce over,
        counted in the leaf as stored (negative from the end), or a full :class:`Axes`,
        or a function that makes them of the rank of one layer's leaf; ``()`` exempts
        the leaf. :data:`OUTPUTS_FIRST` is for the modules of Equinox.
      stacked: regex of further leaves whose axis 0 runs over layers.

    Returns:
      A tree of :class:`Axes` with non-negative axes.

    Raises:
      ValueError: if a rule or ``stacked`` matches no leaf, or names an axis the leaf
        does not have, or names an axis twice.

    Example:
      >>> import jax
      >>> params = {"embed": {"embedding": jax.ShapeDtypeStruct((256, 64), "float32")},
      ...           "blocks": {"kernel": jax.ShapeDtypeStruct((2, 64, 8), "float32")}}
      >>> axes = resolve_axes(params, stacked="^blocks/")
      >>> axes["embed"]["embedding"], axes["blocks"]["kernel"]
      (Axes(reduce=(1,), stack=()), Axes(reduce=(1,), stack=(0,)))
      >>> resolve_axes(params, rules=[("embedding", 0)])["embed"]["embedding"]
      Axes(reduce=(0,), stack=())
    """
    rules = tuple(rules or ())
    unused = {pattern for pattern, _ in rules} | ({stacked} if stacked else set())
    paths = []

    def resolve(key_path: tuple[Any, ...], leaf: Any) -> Axes:
        path = path_string(key_path)
        paths.append(path)
        shape = np.shape(leaf) if np.isscalar(leaf) else leaf.shape
        claims = [rule for rule in rules if matches(rule[0], path, shape, stacked)]
        unused.difference_update(pattern for pattern, _ in claims)
        if stacked is not None and re.search(stacked, path):
            unused.discard(stacked)
        layers = stack_of(path, len(shape), stacked)
        stack = layers.axes
        if claims:
            pattern, axes = claims[0]
            return _normalize(axes, stack, len(shape), f"rule {pattern!r} on {path!r}")
        reduce = unit_axes(layers.path(), shape[len(stack) :])
        reduce = tuple(axis + len(stack) for axis in reduce)
        return _normalize(reduce, stack, len(shape), f"stacked={stacked!r} on {path!r}")

    axes = jax.tree_util.tree_map_with_path(resolve, params)
    # A tree without leaves is a placeholder (an abstract init, or all leaves masked).
    if unused and paths:
        raise ValueError(
            f"no parameter path matches {sorted(unused)}; a rule must cover what it "
            f"claims. Paths: {', '.join(paths[:20])}{', ...' * (len(paths) > 20)}."
        )
    return axes


def _normalize(
    axes: AxesLike | Callable[[int], AxesLike],
    stack: tuple[int, ...],
    ndim: int,
    where: str,
) -> Axes:
    made = callable(axes)
    if callable(axes):
        axes = axes(ndim - len(stack))
    if isinstance(axes, int):
        axes = (axes,)
    if made and not isinstance(axes, Axes):
        axes = tuple(axis + len(stack) if axis >= 0 else axis for axis in axes)
    if not isinstance(axes, Axes):
        axes = Axes(tuple(axes), stack)
    named = (*axes.reduce, *axes.stack)
    if any(not -ndim <= axis < ndim for axis in named):
        raise ValueError(
            f"{where}: {axes} names an axis that a leaf of rank {ndim} does not have."
        )
    reduce, kept = (tuple(sorted(a % ndim for a in part)) for part in axes)
    if len({*reduce, *kept}) != len(named):
        raise ValueError(f"{where}: {axes} names an axis of the leaf twice.")
    return Axes(reduce, kept)


def _reduced(axes: AxesLike) -> tuple[int, ...]:
    if isinstance(axes, Axes):
        return axes.reduce
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _dot(x: jax.Array, y: jax.Array, axes: AxesLike) -> jax.Array:
    dtype = compute_dtype(x.dtype)
    product = x.astype(dtype) * y.astype(dtype)
    return jnp.sum(product, axis=_reduced(axes), keepdims=True)


def _safe(fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """``fn(x)``, and 0 where x is 0, with zero gradient there; NaN stays NaN."""
    zero = x == 0
    return jnp.where(zero, 0, fn(jnp.where(zero, 1, x)))


def unit_norm(x: jax.Array, axes: AxesLike) -> jax.Array:
    """Euclidean norm of every unit.

    Args:
      x: a leaf of any float dtype.
      axes: the axes inside one unit; with none, every number is its own unit.

    Returns:
      Norms with reduced axes of size one, in float32 or wider (a norm rounded to
      bfloat16 would be off by up to 0.4 %). The gradient at a zero unit is zero.

    Example:
      >>> print(unit_norm(jnp.array([[3.0, 0.0], [4.0, 0.0]]), 0))
      [[5. 0.]]
    """
    return _safe(jnp.sqrt, _dot(x, x, axes))


def project_tangent(
    u: jax.Array, w: jax.Array, axes: AxesLike, eps: jax.typing.ArrayLike = 1e-8
) -> jax.Array:
    """Removes from every unit of ``u`` its component along the same unit of ``w``.

    ``u - w <w, u> / (|w| + eps)^2``, unit by unit.

    Args:
      u: the vectors to project.
      w: the weights, of the shape of ``u``.
      axes: the axes inside one unit.
      eps: added to the norm. What is left along ``w`` is a fraction
        ``1 - (|w| / (|w| + eps))^2`` of what was there, about ``2 eps / |w|``.

    Returns:
      The tangent part, in the dtype of ``u``; ``u`` itself where ``w`` is zero.

    Example:
      >>> u = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> w = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> print(project_tangent(u, w, 0))
      [[0. 1.]
       [2. 2.]]
    """
    dtype = compute_dtype(u.dtype)
    eps = jnp.asarray(eps, dtype)
    squared = _safe(lambda s: 1 / jnp.square(jnp.sqrt(s) + eps), _dot(w, w, axes))
    radial = w.astype(dtype) * (_dot(w, u, axes).astype(dtype) * squared.astype(dtype))
    return (u.astype(dtype) - radial).astype(u.dtype)


def retract(
    w: jax.Array, norm: jax.Array | jax.typing.ArrayLike, axes: AxesLike
) -> jax.Array:
    """Rescales every unit of ``w`` to a given norm.

    Args:
      w: the weights.
      norm: a scalar, or one norm a unit as :func:`unit_norm` returns them.
      axes: the axes inside one unit.

    Returns:
      ``w norm / |w|`` in the dtype of ``w``; a zero unit has no direction and stays
      zero.

    Example:
      >>> print(retract(jnp.array([[3.0, 0.0], [4.0, 0.0]]), 1.0, 0))
      [[0.6 0. ]
       [0.8 0. ]]
    """
    dtype = compute_dtype(w.dtype)
    inverse = _safe(jax.lax.rsqrt, _dot(w, w, axes))
    return (w.astype(dtype) * (inverse * jnp.asarray(norm, dtype))).astype(w.dtype)


def cosine(
    x: jax.Array, y: jax.Array, axes: AxesLike, eps: jax.typing.ArrayLike = 1e-8
) -> jax.Array:
    """Cosine of the angle between units of ``x`` and ``y``.

    ``<x, y> / (max(|x|, eps) max(|y|, eps))``, unit by unit.

    Args:
      x: vectors.
      y: vectors, of the shape of ``x``.
      axes: the axes inside one unit.
      eps: floor of both norms.

    Returns:
      Cosines with reduced axes of size one, in float32 or wider; 0 where either unit
      is zero.

    Example:
      >>> print(cosine(jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0]), 0))
      [0.8]
    """
    product = _dot(x, y, axes)
    floor = jnp.asarray(eps, product.dtype)
    inverse_x, inverse_y = (
        _safe(lambda s: 1 / jnp.maximum(jnp.sqrt(s), floor), _dot(v, v, axes)).astype(
            product.dtype
        )
        for v in (x, y)
    )
    return product * inverse_x * inverse_y
