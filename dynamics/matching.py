"""Permutations of hidden units that bring one net's weights close to another's.

The assignment step is `optax.assignment`; the search over layers is written by hand,
since no JAX library keeps one.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from gnomon.dynamics.lanczos import inner, widen
from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import Stacks

Spec = Mapping[str, Mapping[int, str]]
Permutations = dict[str, Array]


class Matching(NamedTuple):
    """A permutation of one net's units towards another's.

    Attributes:
      permutations: for each name of the specification, the indices [units] such that
        unit i of the target goes with unit `permutations[name][i]` of the source.
      params: the source, permuted.
      distance: scalar, `|target − params|` over all leaves.
      distance_before: scalar, the same for the source as given.
      rounds: scalar int, sweeps over the permutations until none changed.
    """

    permutations: Permutations
    params: Any
    distance: Array
    distance_before: Array
    rounds: Array


def mlp_spec(params: Any) -> dict[str, dict[int, str]]:
    """The permutation symmetries of a :class:`gnomon.models.MLP`.

    Args:
      params: its parameters, `hidden/<i>/{kernel,bias}` and `head/{kernel,bias}`.

    Returns:
      A specification for :func:`weight_matching`: hidden layer i's outputs, its biases
      and the next layer's inputs share one permutation; inputs and classes have none.

    Example:
      >>> layer = {"kernel": None, "bias": None}
      >>> for rule in mlp_spec({"hidden": {"0": layer}, "head": layer}).items():
      ...     print(rule)
      ('^hidden/0/kernel$', {1: 'hidden/0'})
      ('^hidden/0/bias$', {0: 'hidden/0'})
      ('^head/kernel$', {0: 'hidden/0'})
    """
    depth = len(params.get("hidden", {}))
    spec: dict[str, dict[int, str]] = {}
    for i in range(depth):
        name = f"hidden/{i}"
        inputs = {0: f"hidden/{i - 1}"} if i else {}
        spec[f"^{name}/kernel$"] = {**inputs, 1: name}
        spec[f"^{name}/bias$"] = {0: name}
    if depth:
        spec["^head/kernel$"] = {0: f"hidden/{depth - 1}"}
    return spec


def permute(
    params: Any,
    permutations: Mapping[str, Array],
    spec: Spec,
    *,
    stacked: str | None = None,
) -> Any:
    """Reorders hidden units; the net computes the same function.

    Args:
      params: the weights.
      permutations: for each name of `spec`, indices [units]: unit i of the result is
        unit `permutations[name][i]` of `params`.
      spec: as in :func:`weight_matching`.
      stacked: as in :func:`weight_matching`.

    Returns:
      A tree like `params`, of its dtypes.

    Raises:
      ValueError: if the specification does not fit `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> spec = {"in": {1: "h"}, "out": {0: "h"}}
      >>> params = {"in": jnp.array([[1.0, 2.0]]), "out": jnp.array([[3.0], [4.0]])}
      >>> new = permute(params, {"h": jnp.array([1, 0])}, spec)
      >>> new["in"].tolist(), new["out"].tolist()
      ([[2.0, 1.0]], [[4.0], [3.0]])
    """
    layers = Stacks(params, stacked)
    return layers.restack(_permute(layers.unstack(params), permutations, spec))


def _permute(params: Any, permutations: Mapping[str, Array], spec: Spec) -> Any:
    axes, _ = _resolve(params, spec)
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(
        treedef,
        [_take(x, names, permutations) for x, names in zip(leaves, axes, strict=True)],
    )


def weight_matching(
    target: Any,
    source: Any,
    spec: Spec,
    *,
    rounds: int = 50,
    initial: Mapping[str, Array] | None = None,
    stacked: str | None = None,
) -> Matching:
    """Permutes a net's hidden units to bring its weights closest to another's.

    Minimizing `|target − P(source)|²` over all layers' permutations at once is hard;
    with all but one fixed it is a linear assignment problem: maximize `Σᵢ M[i, p(i)]`
    for the inner products M of the target's units with the source's. Layers take turns,
    in the order of `spec`, until a round changes none.

    Args:
      target: weights to come close to.
      source: weights to permute, like `target`.
      spec: `{regex: {axis: name}}`. The first regex found in a leaf's path says which
        permutation acts on which of its axes; axes of one name are permuted together.
        :func:`mlp_spec` writes it for an MLP. Of stacked layers it names paths and
        axes as of a list of layers (`gnomon.parameters.stacks.unstack`).
      rounds: most sweeps over the permutations. Default 50; a few are usual.
      initial: permutations to start from, a local search's only freedom. Default: the
        identity.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      The `Matching`. A leaf that is not finite leaves its permutations as they were and
      makes the distances NaN.

    Raises:
      ValueError: if a regex matches no leaf, an axis does not exist, a name stands for
        axes of different lengths or for two axes of one leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> spec = {"in": {1: "h"}, "out": {0: "h"}}
      >>> a = {"in": jnp.array([[1.0, 5.0]]), "out": jnp.array([[2.0], [3.0]])}
      >>> b = {"in": jnp.array([[5.0, 1.0]]), "out": jnp.array([[3.0], [2.0]])}
      >>> found = weight_matching(a, b, spec)
      >>> found.permutations["h"].tolist(), found.distance.item()
      ([1, 0], 0.0)

    References:
      Ainsworth et al., Git Re-Basin: Merging Models modulo Permutation Symmetries, 2023
      (https://arxiv.org/abs/2209.04836), section 3.2.

    Differences:
      The paper visits layers in random order; here the order is that of `spec`, so that
      equal inputs give equal results, and `initial` starts elsewhere.
    """
    layers = Stacks(source, stacked)
    target, source = layers.unstack(target), layers.unstack(source)
    axes, sizes = _resolve(source, spec)
    targets, sources = (jax.tree.leaves(widen(tree)) for tree in (target, source))
    start = {name: jnp.arange(size) for name, size in sizes.items()}
    if initial is not None:
        start |= {name: jnp.asarray(initial[name], start[name].dtype) for name in sizes}

    def overlap(name: str, permutations: Permutations) -> Array:
        """[units, units]: inner products of the target's units with the source's."""
        total = jnp.zeros((), jnp.zeros(()).dtype)
        for a, b, names in zip(targets, sources, axes, strict=True):
            if name in names.values():
                axis = next(i for i, other in names.items() if other == name)
                rest = {i: other for i, other in names.items() if i != axis}
                b = _take(b, rest, permutations)
                a, b = (_rows(x, axis).astype(total.dtype) for x in (a, b))
                total = total + jnp.matmul(a, b.T, precision="highest")
        return total

    def visit(name: str, permutations: Permutations) -> tuple[Array, Array]:
        gain = overlap(name, permutations)
        # The assignment would search for ever among costs that do not compare.
        finite = jnp.all(jnp.isfinite(gain))
        gain = jnp.where(finite, gain, 0)
        old = permutations[name]
        rows, columns = optax.assignment.hungarian_algorithm(-gain)
        new = jnp.zeros_like(old).at[rows].set(columns.astype(old.dtype))
        units = jnp.arange(old.size)
        rise = jnp.sum(gain[units, new] - gain[units, old])
        # A gain within rounding would let ties swap for ever.
        rounding = jnp.finfo(gain.dtype).eps * jnp.sum(jnp.abs(gain[units, old]))
        better = rise > rounding
        return jnp.where(better, new, old), better

    def sweep(carry: Any) -> Any:
        permutations, _, count = carry
        changed = jnp.zeros((), bool)
        for name in sizes:
            found, better = visit(name, permutations)
            permutations = {**permutations, name: found}
            changed |= better
        return permutations, changed, count + 1

    permutations, _, count = jax.lax.while_loop(
        lambda carry: carry[1] & (carry[2] < rounds),
        sweep,
        (start, jnp.array(bool(sizes)), jnp.zeros((), jnp.int32)),
    )
    permuted = _permute(source, permutations, spec)
    return Matching(
        permutations,
        layers.restack(permuted),
        _distance(target, permuted),
        _distance(target, source),
        count,
    )


def singular_alignment(first: Array, second: Array, k: int) -> Array:
    """How far the leading singular directions of two matrices agree.

        (1 / k) Σ_{i,j ≤ k} (uᵢ·u'ⱼ)(vᵢ·v'ⱼ)

    This is 1 where the two spaces are equal and paired alike, and near 0 for matrices
    that have nothing in common. Permutations leave singular values alone and only turn
    singular vectors: a matching that lowers the barrier without lowering the distance
    much has aligned the leading ones.

    Args:
      first: [m, n] matrix, such as a kernel of the target.
      second: [m, n] matrix, such as the matched kernel.
      k: how many leading directions, at most `min(m, n)`.

    Returns:
      A scalar in [-1, 1].

    Raises:
      ValueError: if the arguments are not two matrices of one shape, or `k` is out of
        range.

    Example:
      >>> import jax.numpy as jnp
      >>> a = jnp.diag(jnp.array([3.0, 2.0, 1.0]))
      >>> round(singular_alignment(a, a, 2).item(), 4)
      1.0
      >>> round(singular_alignment(a, a[::-1], 2).item(), 4)
      0.5

    References:
      Ito et al., Analysis of Linear Mode Connectivity via Permutation-Based Weight
      Matching, 2024 (https://arxiv.org/abs/2402.04051).
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            f"first, second: shapes {first.shape} and {second.shape}; two matrices of "
            "one shape are needed"
        )
    if not 1 <= k <= min(first.shape):
        raise ValueError(f"k: {k}; it must lie between 1 and {min(first.shape)}")

    def leading(matrix: Array) -> tuple[Array, Array]:
        left, _, right = jnp.linalg.svd(widen(matrix), full_matrices=False)
        return left[:, :k], right[:k]

    (u, v), (other_u, other_v) = leading(first), leading(second)
    with jax.default_matmul_precision("highest"):
        return jnp.sum((u.T @ other_u) * (v @ other_v.T)) / k


def _resolve(params: Any, spec: Spec) -> tuple[list[dict[int, str]], dict[str, int]]:
    """For each leaf its permuted axes, and for each name its length."""
    axes: list[dict[int, str]] = []
    found: dict[str, int] = {}
    unused = set(spec)
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_string(key_path)
        claims = [pattern for pattern in spec if re.search(pattern, path)]
        unused.difference_update(claims)
        names = dict(spec[claims[0]]) if claims else {}
        if len(set(names.values())) < len(names):
            raise ValueError(f"spec: one name on two axes of {path}: {names}")
        for axis, name in names.items():
            if not 0 <= axis < leaf.ndim:
                raise ValueError(f"spec: {path} of shape {leaf.shape} has no {axis=}")
            if found.setdefault(name, leaf.shape[axis]) != leaf.shape[axis]:
                raise ValueError(
                    f"spec: {name!r} has length {found[name]}, and {leaf.shape[axis]} "
                    f"on axis {axis} of {path}; give the latter another name"
                )
        axes.append(names)
    if unused:
        raise ValueError(f"spec: no parameter path matches {sorted(unused)}")
    # In the order of the specification: it is the order of the search.
    order = dict.fromkeys(name for names in spec.values() for name in names.values())
    return axes, {name: found[name] for name in order if name in found}


def _take(
    x: Array, names: Mapping[int, str], permutations: Mapping[str, Array]
) -> Array:
    for axis, name in names.items():
        x = jnp.take(x, permutations[name], axis=axis)
    return x


def _rows(x: Array, axis: int) -> Array:
    return jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def _distance(first: Any, second: Any) -> Array:
    difference = jax.tree.map(jnp.subtract, widen(first), widen(second))
    return jnp.sqrt(inner(difference, difference))
