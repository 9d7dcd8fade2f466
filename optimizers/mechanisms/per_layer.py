"""Any optimizer on stacked layers as on a list of layers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from gnomon.optimizers.mechanisms.fused import FusedTransformation, apply_fused
from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.stacks import Stacks

__all__ = ["per_layer"]


def per_layer(
    inner: optax.GradientTransformation,
    *,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Shows an optimizer the layers of stacked leaves one by one.

    What an optimizer finds of a whole leaf, a norm or a rank or a factorization, it
    would find of all layers of a stack together. Here it sees the tree of the model
    whose layers are not scanned, ``blocks/0/...`` in place of ``blocks/stacked/...``
    (:mod:`gnomon.parameters.stacks`), and its updates are stacked again. So is what its
    state holds of the parameters: it is shaped, and sharded, like them. The compile
    time grows with the number of layers.

    Optimizers of this package keep layers apart by themselves, and its wrappers and the
    trainer put an inner optimizer of another package into ``per_layer`` where it is not
    plainly elementwise. It is for chains of one's own.

    Args:
      inner: any optax transform. Regexes, masks and labels that it was given see the
        names of the unscanned model; a tree of them has its structure, nested
        dictionaries.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      The transform. The extra args that speak of parameters are translated: trees like
      the parameters are taken apart, ``value_fn``, ``obj_fn`` and ``grad_fn`` become
      functions of the unscanned tree. It has the fused entry point of
      :func:`gnomon.optimizers.apply_fused` where ``inner`` has one. Without stacked
      leaves it is ``inner``.

    Raises:
      ValueError: if two leaves would have one path, or ``inner`` was given a tree of
        the structure with stacked leaves.
      TypeError: if ``inner`` is no transform.

    Example:
      With LARS' trust ratio a layer's step is as long as its weights, times the rate:

      >>> import jax.numpy as jnp
      >>> kernels = jnp.stack([jnp.eye(2), 9 * jnp.eye(2)])
      >>> w = {"blocks": {"stacked": {"kernel": kernels}}}
      >>> g = jax.tree.map(jnp.ones_like, w)
      >>> lars = optax.chain(optax.scale_by_trust_ratio(), optax.scale(-0.1))
      >>> for optimizer in (lars, per_layer(lars)):
      ...     updates, _ = optimizer.update(g, optimizer.init(w), w)
      ...     update = updates["blocks"]["stacked"]["kernel"]
      ...     print(jnp.linalg.norm(update, axis=(1, 2)).round(4))
      [0.9055 0.9055]
      [0.1414 1.2728]
    """
    wrapped = complete(inner, any_sign=True)

    def init_fn(params: optax.Params) -> optax.OptState:
        layers = Stacks(params, stacked)
        if not layers.any:
            return wrapped.init(params)
        single = layers.unstack(params)
        with _explained(lambda: wrapped.init(params)):
            layout = _Layout(wrapped, layers, params)
            with layers.apart():
                state = wrapped.init(single)
        return layout.restack(state)

    def run(
        step: Callable[..., tuple[Any, Any]],
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None,
        extra_args: Mapping[str, Any],
    ) -> tuple[Any, optax.OptState]:
        tree = updates if params is None else params
        layers = Stacks(tree, stacked)
        if not layers.any:
            return step(updates, state, params, extra_args)
        layout = _Layout(wrapped, layers, tree)

        def as_they_are() -> tuple[Any, Any]:
            return step(updates, wrapped.init(tree), params, extra_args)

        with _explained(as_they_are), layers.apart():
            moved, state = step(
                layers.unstack(updates),
                layout.unstack(state),
                None if params is None else layers.unstack(params),
                _translated(extra_args, layers),
            )
        return layers.restack(moved), layout.restack(state)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        def step(
            updates: optax.Updates,
            state: optax.OptState,
            params: optax.Params | None,
            extra_args: Mapping[str, Any],
        ) -> tuple[optax.Updates, optax.OptState]:
            found: tuple[Any, Any] = wrapped.update(
                updates, state, params, **extra_args
            )
            return found

        return run(step, updates, state, params, extra_args)

    unfused = transformation("per_layer", init_fn, update_fn, complex_leaves=True)
    if not isinstance(wrapped, FusedTransformation):
        return unfused

    def apply_fn(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params,
        **extra_args: Any,
    ) -> tuple[optax.Params, optax.OptState]:
        def step(
            grads: optax.Updates,
            state: optax.OptState,
            params: optax.Params,
            extra_args: Mapping[str, Any],
        ) -> tuple[optax.Params, optax.OptState]:
            return apply_fused(wrapped, grads, state, params, **extra_args)

        return run(step, grads, state, params, extra_args)

    return FusedTransformation(unfused, apply_fn)


class _Layout:
    """The way between the state of the inner optimizer and the state shown outside."""

    def __init__(
        self,
        wrapped: optax.GradientTransformationExtraArgs,
        layers: Stacks,
        params: Any,
    ):
        self._layers = layers
        self._like = layers.unstack(params)
        with layers.apart():
            state = jax.eval_shape(wrapped.init, self._like)
        treedef: Any = jax.tree.structure(state)
        self._treedef: Any = treedef
        # Where each of its leaves lies: number 7 may be layer 2 of a stacked leaf.
        numbers = [np.asarray(i) for i in range(treedef.num_leaves)]
        self._where = self.restack(treedef.unflatten(numbers))

    def restack(self, state: Any) -> Any:
        """Stacks every subtree that is made like the parameters."""

        def is_params(node: Any) -> bool:
            return isinstance(node, dict) and _same_names(node, self._like)

        return jax.tree.map(
            lambda node: self._layers.restack(node) if is_params(node) else node,
            state,
            is_leaf=is_params,
        )

    def unstack(self, state: Any) -> Any:
        """The inverse of :meth:`restack`."""
        leaves: list[Any] = [None] * self._treedef.num_leaves
        where: list[Any]
        treedef: Any
        where, treedef = jax.tree.flatten(self._where)
        for numbers, leaf in zip(where, treedef.flatten_up_to(state), strict=True):
            for index in np.ndindex(numbers.shape):
                leaves[int(numbers[index])] = leaf[index] if index else leaf
        return self._treedef.unflatten(leaves)


@contextlib.contextmanager
def _explained(as_they_are: Callable[[], Any]) -> Iterator[None]:
    """Says what is wrong where taking the tree apart is what brought it about.

    Args:
      as_they_are: does the same with stacked leaves; where it raises, that is raised.
    """
    try:
        yield
    except Exception as error:  # whatever an optimizer of another's raises
        jax.eval_shape(as_they_are)
        raise ValueError(
            "inner takes the parameters as they are, and not the layers of their "
            "stacked leaves one by one: a mask, labels or any other tree that it was "
            "given has to be a function of the parameters, or to have the structure of "
            "the model that is not scanned, nested dictionaries with a name a layer; "
            f"and regexes have to be found in its names. It says: {error}"
        ) from error


def _same_names(node: Any, like: Any) -> bool:
    if not isinstance(like, dict):
        return True
    return (
        isinstance(node, dict)
        and node.keys() == like.keys()
        and all(_same_names(node[name], like[name]) for name in like)
    )


def _translated(extra_args: Mapping[str, Any], layers: Stacks) -> dict[str, Any]:
    """The extra args as an optimizer of single layers is to see them."""
    translated = dict(extra_args)
    for name, value in extra_args.items():
        if name == "shardings":
            translated[name] = _of_layers(value, layers)
        elif not callable(value) and layers.fits(value):
            translated[name] = layers.unstack(value)

    def of_layers(fn: Callable[..., Any]) -> Callable[..., Any]:
        return lambda tree, *args, **kwargs: fn(layers.restack(tree), *args, **kwargs)

    for name in ("value_fn", "obj_fn"):
        if callable(extra_args.get(name)):
            translated[name] = of_layers(extra_args[name])
    grad_fn = extra_args.get("grad_fn")
    if callable(grad_fn):
        gradient = of_layers(grad_fn)
        translated["grad_fn"] = lambda *args, **kwargs: layers.unstack(
            gradient(*args, **kwargs)
        )
    return translated


def _of_layers(shardings: Any, layers: Stacks) -> Any:
    """Shardings of single layers: what is left of those of the stacks."""
    if shardings is None:
        return None

    def rest(sharding: NamedSharding | None, depth: int) -> NamedSharding | None:
        if sharding is None:
            return None
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[depth:]))

    return layers.unstack(layers.map(rest, shardings))
