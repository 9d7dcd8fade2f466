"""Lanczos tridiagonalization of a symmetric operator on parameter trees.

Written by hand: matfree has it, for flat vectors, and the recurrence is forty lines.
Vectors are trees here, so that every leaf of the basis can keep the sharding of the
parameter it belongs to; a single array is a tree too, and compiles fastest.
"""

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.parameters.products import inner_product, scalar_dtype
from gnomon.parameters.stacks import Stacks, unstack
from gnomon.parameters.trees import compute_dtype

Tree = Any
Operator = Callable[[Tree], Tree]


class Tridiagonal(NamedTuple):
    """The compression `T = QᵀAQ` of a symmetric operator to a Krylov space.

    Attributes:
      diagonal: [m], `qᵢᵀ A qᵢ`.
      off_diagonal: [m - 1], `qᵢ₊₁ᵀ A qᵢ`, not negative.
      residual: scalar, norm of the part of `A q_m` outside the space.
      basis: tree of [m, ...]; row i of every leaf together is the unit vector `qᵢ`.
    """

    diagonal: Array
    off_diagonal: Array
    residual: Array
    basis: Tree

    def matrix(self) -> Array:
        """`T` as a dense [m, m] array."""
        off = self.off_diagonal
        return jnp.diag(self.diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1)


class Ritz(NamedTuple):
    """Eigenpairs of the compression, largest value first.

    Attributes:
      values: [m], in falling order.
      coordinates: [m, m]; column i holds the i-th Ritz vector in the Lanczos basis.
      errors: [m]; each value lies within its error of an eigenvalue of the operator
        (exact arithmetic).
    """

    values: Array
    coordinates: Array
    errors: Array


def lanczos(
    matvec: Operator, start: Tree, iterations: int, *, key: Array | None = None
) -> Tridiagonal:
    r"""Tridiagonalizes a symmetric operator, reorthogonalizing fully.

    From `q₁ = start / |start|`,

        βᵢ qᵢ₊₁ = A qᵢ − αᵢ qᵢ − βᵢ₋₁ qᵢ₋₁,      αᵢ = qᵢᵀ A qᵢ,

    the right side being orthogonalized against every earlier vector, repeatedly: else
    float32 loses orthogonality as soon as a Ritz value converges and reports that value
    again and again. Where the Krylov space closes (`βᵢ = 0` to rounding) the recurrence
    goes on from a random direction orthogonal to it, so that every Ritz value stays a
    value of `A` and none is invented.

    Arithmetic is float32, or float64 for a leaf of float64. Memory is m copies of
    `start`.

    Args:
      matvec: the operator, from a tree like `start` to a tree like it.
      start: the first direction, of any length. Zero or not finite: every result is
        NaN.
      iterations: m, how often `matvec` is applied, at least 1; never more than the
        number of entries of `start`.
      key: where restart directions are drawn from. Default `jax.random.key(0)`; a
        run that meets no invariant space does not depend on it.

    Returns:
      The `Tridiagonal`.

    Raises:
      ValueError: if `iterations` is less than one or `start` has no entries.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> scale = jnp.array([1.0, 2.0, 5.0])
      >>> t = lanczos(lambda v: scale * v, jnp.ones(3), 3)
      >>> jnp.linalg.eigvalsh(t.matrix()).round(4).tolist()
      [1.0, 2.0, 5.0]

    References:
      Lanczos, An iteration method for the solution of the eigenvalue problem, 1950.
      Parlett, The Symmetric Eigenvalue Problem, 1998, chapter 13.
    """
    if iterations < 1:
        raise ValueError(f"iterations: {iterations}; at least 1 is needed")
    size = sum(leaf.size for leaf in jax.tree.leaves(start))
    if not size:
        raise ValueError("start: the tree has no entries")
    count = min(iterations, size)
    key = jax.random.key(0) if key is None else key
    start = widen(start)
    dtype = scalar_dtype(start)
    precision = jnp.finfo(dtype).eps
    angles = random_like(key, start, jax.random.uniform)
    angles = jax.tree.map(lambda x: 2 * math.pi * x, angles)
    rows = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), start)

    def step(carry: Any, index: Array) -> Any:
        basis, vector, largest = carry
        basis = jax.tree.map(lambda q, v: q.at[index].set(v), basis, vector)
        product = widen(matvec(vector))
        alpha = inner(vector, product)
        residual = _orthogonalize(basis, product)
        beta = jnp.sqrt(inner(residual, residual))
        largest = jnp.maximum(largest, jnp.maximum(jnp.abs(alpha), beta))
        # The second pass comes after normalizing, which magnifies what the first one
        # left of the old directions in a short residual. Where that was most of it the
        # residual is rounding, however long, and the space is closed.
        second = _orthogonalize(basis, _normalize(residual))
        closed = (beta <= precision * largest) | (inner(second, second) < 0.5)
        # Cosines of multiples of fixed random angles: independent for any two steps,
        # and far cheaper to compile than a draw inside the loop.
        following = jax.tree.map(
            lambda r, angle: jnp.where(
                closed, jnp.cos(angle * (index + 1).astype(angle.dtype)), r
            ),
            second,
            angles,
        )
        following = _orthogonalize(basis, _normalize(following))
        beta = jnp.where(closed, jnp.zeros_like(beta), beta)
        return (basis, _normalize(following), largest), (alpha, beta)

    initial = (rows, _normalize(start), jnp.zeros((), dtype))
    (basis, _, _), (alphas, betas) = jax.lax.scan(step, initial, jnp.arange(count))
    return Tridiagonal(alphas, betas[:-1], betas[-1], basis)


def ritz(tridiagonal: Tridiagonal) -> Ritz:
    """Eigenvalues of the compression, with error bounds.

    `|A y − θ y| = β_m |s_m|` for a Ritz value `θ` whose coordinates end in `s_m`, and
    a symmetric operator has an eigenvalue within that of `θ`.

    Args:
      tridiagonal: what :func:`lanczos` returned.

    Returns:
      The `Ritz` pairs, NaN where `tridiagonal` holds a NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> scale = jnp.array([1.0, 2.0, 5.0, 9.0])
      >>> pairs = ritz(lanczos(lambda v: scale * v, jnp.ones(4), 2))
      >>> [round(float(x), 3) for x in (pairs.values[0], pairs.errors[0])]
      [8.262, 1.666]
    """
    values, vectors = jnp.linalg.eigh(tridiagonal.matrix())
    values, vectors = values[::-1], vectors[:, ::-1]
    return Ritz(values, vectors, jnp.abs(tridiagonal.residual * vectors[-1]))


def ritz_vectors(tridiagonal: Tridiagonal, pairs: Ritz, count: int) -> Tree:
    """The first `count` Ritz vectors as a tree of [count, ...], of unit length.

    Args:
      tridiagonal: what :func:`lanczos` returned.
      pairs: what :func:`ritz` made of it.
      count: how many, from the largest value down.

    Returns:
      A tree like the operator's vectors with a leading axis.

    Example:
      >>> import jax.numpy as jnp
      >>> t = lanczos(lambda v: jnp.array([1.0, 2.0, 5.0]) * v, jnp.ones(3), 3)
      >>> abs(ritz_vectors(t, ritz(t), 1)).round(3).tolist()
      [[0.0, 0.0, 1.0]]
    """
    columns = pairs.coordinates[:, :count]
    return jax.tree.map(
        lambda q: jnp.tensordot(
            columns.T.astype(q.dtype), q, axes=1, precision="highest"
        ),
        tridiagonal.basis,
    )


def widen(tree: Tree) -> Tree:
    """The tree in float32; leaves of float64 stay as they are."""
    return jax.tree.map(lambda x: x.astype(compute_dtype(x.dtype)), tree)


def inner(left: Tree, right: Tree) -> Array:
    """Inner product of two trees, summed in the widest dtype among their leaves."""
    dtype = scalar_dtype(left)

    def cast(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: x.astype(dtype), tree)

    return inner_product(cast(left), cast(right))


def ravel(tree: Tree) -> Array:
    """All entries of a tree as one vector, in the widest dtype among its leaves.

    Stacked layers come one after another, as those of a list do.
    """
    dtype = scalar_dtype(tree)
    leaves = jax.tree.leaves(unstack(tree))
    return jnp.concatenate([jnp.reshape(x, -1).astype(dtype) for x in leaves])


def unravel(flat: Array, like: Tree) -> Tree:
    """The inverse of :func:`ravel`: shapes and (wide) dtypes are those of `like`."""
    layers = Stacks(like)
    leaves, treedef = jax.tree.flatten(layers.unstack(like))
    sizes = [math.prod(jnp.shape(x)) for x in leaves]
    parts = jnp.split(flat, list(accumulate(sizes))[:-1])
    parts = [
        part.reshape(jnp.shape(x)).astype(compute_dtype(x.dtype))
        for part, x in zip(parts, leaves, strict=True)
    ]
    return layers.restack(jax.tree.unflatten(treedef, parts))


def ravel_operator(matvec: Operator, like: Tree) -> Operator:
    """An operator on trees like `like` as one on vectors."""
    return lambda flat: ravel(matvec(unravel(flat, like)))


def random_like(
    key: Array, tree: Tree, draw: Callable[..., Array] = jax.random.normal
) -> Tree:
    """A tree of independent random entries, in the wide dtypes of the leaves.

    All leaves are cut from one draw: every further call of a random function costs
    about as much compile time as the rest of a probe. Stacked layers get the numbers of
    a list of layers.
    """
    size = sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(tree))
    return unravel(draw(key, (size,), scalar_dtype(tree)), tree)


def _normalize(tree: Tree) -> Tree:
    factor = 1 / jnp.sqrt(inner(tree, tree))
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), tree)


def _orthogonalize(basis: Tree, vector: Tree) -> Tree:
    """Removes the components along the rows of the basis; unused rows are zero."""
    dtype = scalar_dtype(vector)

    def overlap(q: Array, v: Array) -> Array:
        return jnp.tensordot(q, v, axes=v.ndim, precision="highest").astype(dtype)

    parts = jax.tree.leaves(jax.tree.map(overlap, basis, vector))
    total = jnp.sum(jnp.stack(parts), axis=0)

    def remove(q: Array, v: Array) -> Array:
        return v - jnp.tensordot(total.astype(v.dtype), q, 1, precision="highest")

    return jax.tree.map(remove, basis, vector)
