"""Many small leaves updated as a few vectors."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from gnomon.optimizers.mechanisms.fused import (
    FusedTransformation,
    apply_fused,
    leaf_shardings,
)
from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_params, require_within
from gnomon.parameters.stacks import Stacks

__all__ = ["Buckets", "bucket_leaves"]


class Buckets(NamedTuple):
    """Parameters as the inner optimizer of :func:`bucket_leaves` sees them."""

    # The tree of the parameters, with None in place of every leaf that is in a bucket.
    leaves: Any
    # Vectors of joined leaves, by dtype and label: "float32", "float32/decay".
    vectors: Mapping[str, Any]


def bucket_leaves(
    inner: optax.GradientTransformation,
    *,
    max_size: int = 2**14,
    label: Callable[[Any], Any] | None = None,
    joins: Callable[[jax.Array], bool] | None = None,
) -> FusedTransformation:
    """Updates the small leaves of a tree joined into a few vectors.

    On an accelerator each leaf costs a launch or more a step, however small it is; a
    network of hundreds of scales, biases and small kernels spends its optimizer's time
    on these. Joined, they cost the launches of a vector for each dtype. The moments
    stay joined between steps; only parameters and gradients are joined and split.

    ``inner`` must treat each number alone, as AdamW does and as AdamP treats leaves of
    rank one: then results are those of ``inner`` itself. What it computes over a whole
    leaf, such as a norm, would be over a bucket. It sees a tree of :class:`Buckets`, so
    a mask or a rule for it is written for paths such as ``leaves/dense/kernel`` and
    ``vectors/float32/decay``.

    Args:
      inner: an optimizer, or another link of a chain.
      max_size: leaves of at most so many numbers a layer are joined, default 16384.
      label: a function of the parameters that returns a tree of strings, or a prefix of
        one; leaves of different labels never share a bucket. Default one label, "".
      joins: which of the small leaves to join, a function of a leaf, of which it sees
        the shape and dtype of one layer where layers are stacked; default all. For
        an optimizer that works by rows, ``lambda leaf: leaf.ndim < 2``.

    Returns:
      The optimizer. It needs ``params`` in ``update``, and has a fused ``apply`` where
      ``inner`` has one. Buckets of sharded leaves would be gathered: join leaves that
      every device holds in full.

    Raises:
      ValueError: if ``params`` is missing, or the gradient of a joined leaf.
      TypeError: if ``inner`` is no transform.

    Example:
      Ten biases and a kernel are two arrays to AdamW:

      >>> params = {str(i): jnp.zeros(3) for i in range(10)}
      >>> params["kernel"] = jnp.zeros((200, 100))
      >>> optimizer = bucket_leaves(optax.adamw(1e-3))
      >>> mu = optimizer.init(params)[0].mu
      >>> [leaf.shape for leaf in jax.tree.leaves(mu)]
      [(200, 100), (30,)]
    """
    require_within("[0, inf]", max_size=max_size)
    extended = layered(complete(inner, any_sign=True), prefixes=("leaves/",))

    def plan(params: optax.Params) -> list[str | None]:
        """The bucket of every leaf, in order; None for one that stays alone."""
        labels = "" if label is None else label(params)
        labels = jax.tree.map(
            lambda name, subtree: jax.tree.map(lambda _: name, subtree), labels, params
        )

        def bucket(leaf: Any, name: str) -> str | None:
            small = leaf.size <= max_size and (joins is None or joins(leaf))
            return "/".join(filter(None, (leaf.dtype.name, name))) if small else None

        layers = Stacks(params)
        params = layers.first(_shapes(params)) if layers.any else params
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(labels), strict=True)
        return [bucket(leaf, name) for leaf, name in pairs]

    def join(buckets: list[str | None], treedef: Any, tree: Any) -> Buckets:
        leaves = treedef.flatten_up_to(tree)
        alone = [
            leaf if name is None else None
            for leaf, name in zip(leaves, buckets, strict=True)
        ]
        parts: dict[str, list[Any]] = {}
        for leaf, name in zip(leaves, buckets, strict=True):
            if name is not None and leaf is None:
                raise ValueError(
                    "a small leaf has no gradient (None), and bucket_leaves cannot "
                    "leave it out of its bucket: pass zeros, or keep it out of all "
                    "buckets with joins=."
                )
            if name is not None:
                parts.setdefault(name, []).append(leaf)
        vectors = {name: _joined(part) for name, part in parts.items()}
        return Buckets(jax.tree.unflatten(treedef, alone), vectors)

    def join_shardings(
        buckets: list[str | None], treedef: Any, shardings: Any, params: optax.Params
    ) -> Buckets | None:
        """As the parameters; buckets lie on every device in full."""
        if shardings is None:
            return None
        leaves = treedef.flatten_up_to(leaf_shardings(shardings, params))
        pairs = list(zip(leaves, buckets, strict=True))
        alone = [leaf if name is None else None for leaf, name in pairs]
        vectors = {
            name: NamedSharding(leaf.mesh, PartitionSpec())
            for leaf, name in pairs
            if name is not None
        }
        return Buckets(jax.tree.unflatten(treedef, alone), vectors)

    def split(
        buckets: list[str | None],
        treedef: Any,
        likes: list[jax.Array],
        joined: Buckets,
    ) -> Any:
        alone = treedef.flatten_up_to(joined.leaves)
        offsets = dict.fromkeys(joined.vectors, 0)
        leaves = []
        for leaf, name, like in zip(alone, buckets, likes, strict=True):
            if name is not None:
                size = math.prod(like.shape)
                part = jax.lax.slice_in_dim(
                    joined.vectors[name], offsets[name], offsets[name] + size
                )
                leaf = _placed(part.reshape(like.shape), like)
                offsets[name] += size
            leaves.append(leaf)
        return jax.tree.unflatten(treedef, leaves)

    def init_fn(params: optax.Params) -> optax.OptState:
        if jax.tree.leaves(params):
            return extended.init(join(plan(params), jax.tree.structure(params), params))
        # A part of a partition that has none; or optax asks, with a tree that is to
        # show where the state holds trees like the parameters. It holds none: what is
        # there is answered by leaves of another kind, which no update looks at.
        return jax.tree.map(
            lambda x: jnp.zeros([]) if isinstance(x, Buckets) else x,
            extended.init(Buckets(params, {})),
            is_leaf=lambda x: isinstance(x, Buckets),
        )

    def prepare(
        updates: optax.Updates, params: optax.Params
    ) -> tuple[list[str | None], Any, list[jax.Array], Buckets, Buckets]:
        leaves, treedef = jax.tree.flatten(params)
        buckets = plan(params)
        grads, joined = (join(buckets, treedef, tree) for tree in (updates, params))
        return buckets, treedef, leaves, grads, joined

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        require_params(params, "bucket_leaves")
        if not jax.tree.leaves(params):
            return updates, state
        buckets, treedef, likes, grads, joined = prepare(updates, params)
        grads, state = extended.update(grads, state, joined, **extra_args)
        return split(buckets, treedef, likes, grads), state

    def apply_fn(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params,
        *,
        shardings: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Params, optax.OptState]:
        require_params(params, "bucket_leaves")
        if not jax.tree.leaves(params):
            return params, state
        buckets, treedef, likes, joined_grads, joined = prepare(grads, params)
        cuts = join_shardings(buckets, treedef, shardings, params)
        if cuts is not None:
            extra_args["shardings"] = cuts
        moved, state = apply_fused(extended, joined_grads, state, joined, **extra_args)
        return split(buckets, treedef, likes, moved), state

    unfused = transformation("bucket_leaves", init_fn, update_fn, complex_leaves=True)
    return FusedTransformation(unfused, apply_fn)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _joined(leaves: list[Any]) -> Any:
    """The leaves as one vector, which every device holds in full."""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        size = sum(leaf.size for leaf in leaves)
        return jax.ShapeDtypeStruct((size,), leaves[0].dtype)
    return jnp.concatenate([_gathered(leaf).reshape(-1) for leaf in leaves])


def _gathered(leaf: jax.Array) -> jax.Array:
    """The leaf on every device, where its type says how it is cut."""
    sharding = jax.typeof(leaf).sharding
    if not any(sharding.spec):
        return leaf
    gathered: jax.Array = jax.sharding.reshard(leaf, PartitionSpec())
    return gathered


def _placed(leaf: jax.Array, like: jax.Array) -> jax.Array:
    """The leaf cut as another, where the type of that says how it is."""
    sharding = jax.typeof(like).sharding
    if not any(sharding.spec):
        return leaf
    placed: jax.Array = jax.sharding.reshard(leaf, sharding)
    return placed
