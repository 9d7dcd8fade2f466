"""Layers in one leaf: which leaves stack them, and the tree as if they did not.

A model whose layers run under ``jax.lax.scan`` keeps the arrays of all its layers in
one leaf. That cannot be seen in a shape, so the names say it, because names survive
dictionaries, states, checkpoints and wrappers:

    Each name on a leaf's path that is ``stacked``, or ends in ``_stacked``, stands for
    one leading axis of the leaf that runs over layers. Layer 3 of
    ``blocks/stacked/mlp/kernel`` is what an unscanned model calls
    ``blocks/3/mlp/kernel``, and of ``Dense_stacked/kernel`` it is ``Dense_3/kernel``.

For a tree with other names a regex ``stacked`` adds leaves whose axis 0 runs over
layers; their layers' names get the index behind the name in which the regex ends, or
before the leaf's own name if it ends there. What an optimizer or a probe finds of
stacked layers is what it finds of a list of layers: most read `Axes.stack`, the others
`unstack` the tree.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.parameters.paths import path_string

# Of leaves whose rank is not known: that their names fit them was checked before.
_ANY_RANK = 99
_NAMED = re.compile(r"(?:^|(?<=[/_]))stacked(?=/|$)")


class _Declared(NamedTuple):
    """What an enclosing wrapper said of its leaves."""

    # Regex of leaves that stack layers.
    pattern: str | None = None
    # The paths of layers that were taken apart, whatever regexes are found in them.
    layers: frozenset[str] = frozenset()
    # What stands before the parameters' paths in the trees that wrappers hand down,
    # innermost first; of each the alternatives.
    prefixes: tuple[tuple[str, ...], ...] = ()

    def split(self, path: str) -> tuple[str, str] | None:
        """What stands before the parameter's path, and that path."""
        before = ""
        for alternatives in self.prefixes:
            found = next((p for p in alternatives if path.startswith(p)), None)
            if found is None:
                return None
            before, path = before + found, path[len(found) :]
        return before, path

    def holds(self, path: str) -> bool:
        parts = self.split(path)
        return parts is not None and parts[1] in self.layers

    def search(self, path: str) -> tuple[str, str, re.Match[str]] | None:
        parts = self.split(path)
        if parts is None or self.pattern is None:
            return None
        match = re.search(self.pattern, parts[1])
        return None if match is None else (*parts, match)


_DECLARED: ContextVar[tuple[_Declared, ...]] = ContextVar("stacked", default=())


@contextlib.contextmanager
def declare(
    stacked: str | None = None,
    prefixes: Sequence[str] = (),
    layers: Iterable[str] = (),
) -> Iterator[None]:
    """Says to all that runs inside which leaves are stacked.

    A wrapper enters it around the ``init`` and ``update`` of what it wraps, so that its
    ``stacked`` holds there too.

    Args:
      stacked: the regex, or None for what is declared already.
      prefixes: what stands before the parameters' paths in the trees that the wrapper
        hands down, such as ``"direction/"``; default nothing.
      layers: paths of single layers that were stacked in the tree outside. No regex,
        also none that is given inside, says that they are stacked again.

    Example:
      >>> with declare("^blocks/", prefixes=("direction/", "scale/")):
      ...     print(stack_of("direction/blocks/kernel", 3).path(1))
      direction/blocks/1/kernel
    """
    inside = list(_DECLARED.get())
    if stacked is not None:
        inside.append(_Declared(stacked))
    if apart := frozenset(layers):
        inside.append(_Declared(layers=apart))
    if prefixes:
        inside = [d._replace(prefixes=(tuple(prefixes), *d.prefixes)) for d in inside]
    token = _DECLARED.set(tuple(inside))
    try:
        yield
    finally:
        _DECLARED.reset(token)


# Whether leaves are single layers under the names of stacks.
_ONE_LAYER: ContextVar[bool] = ContextVar("one_layer", default=False)


class Stack(NamedTuple):
    """How one leaf stacks layers."""

    pieces: tuple[str, ...]  # the path of a layer, cut where its indices stand

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that run over layers."""
        return tuple(range(len(self.pieces) - 1))

    def path(self, *indices: int) -> str:
        """The path of a layer in an unscanned model; of the first by default."""
        indices = indices or (0,) * len(self.axes)
        parts = zip(self.pieces, (*map(str, indices), ""), strict=True)
        return "".join(itertools.chain.from_iterable(parts)).strip("/")


def stack_of(path: str, ndim: int, stacked: str | None = None) -> Stack:
    """How a leaf stacks layers, see the module.

    Args:
      path: names from the root to the leaf, joined by ``/``.
      ndim: the leaf's rank; a leaf of fewer axes than its path names stacks nothing.
      stacked: regex of further leaves whose axis 0 runs over layers.

    Returns:
      The stack, without axes where the leaf holds one layer.

    Example:
      >>> stack_of("blocks/stacked/mlp/kernel", 3).path(2)
      'blocks/2/mlp/kernel'
      >>> stack_of("layers/kernel", 3, "^layers").path(2)
      'layers/2/kernel'
      >>> stack_of("mlp/kernel", 2).axes
      ()
    """
    if _ONE_LAYER.get():
        return Stack((_found(path, _ANY_RANK, stacked).path(),))
    return _found(path, ndim, stacked)


def _found(path: str, ndim: int, stacked: str | None) -> Stack:
    named = tuple(_NAMED.split(path))
    if len(named) > 1:
        return Stack(named if len(named) <= ndim + 1 else (path,))
    outside = _DECLARED.get()
    if any(declared.holds(path) for declared in outside):
        return Stack((path,))
    own = () if stacked is None else (_Declared(stacked),)
    for declared in (*own, *outside):
        found = declared.search(path)
        if found is not None:
            before, rest, match = found
            cut = _after(rest, match.end())
            return Stack((before + rest[:cut], f"/{rest[cut:]}"))
    return Stack((path,))


def matches(
    pattern: str, path: str, shape: Sequence[int], stacked: str | None = None
) -> bool:
    r"""Whether a regex is found in a leaf's path, or in those of all its layers.

    Args:
      pattern: the regex, written for stacked layers or for a list of them.
      path: names from the root to the leaf, joined by ``/``.
      shape: the leaf's shape.
      stacked: regex of further leaves whose axis 0 runs over layers.

    Raises:
      ValueError: if some layers of the leaf match and others do not.

    Example:
      >>> matches(r"blocks/\d+/mlp", "blocks/stacked/mlp/kernel", (2, 4, 4))
      True
    """
    if re.search(pattern, path):
        return True
    stack = stack_of(path, len(shape), stacked)
    if not stack.axes:
        return bool(re.search(pattern, stack.path()))
    sizes = (shape[axis] for axis in stack.axes)
    found = {
        bool(re.search(pattern, stack.path(*index)))
        for index in itertools.product(*map(range, sizes))
    }
    if len(found) > 1:
        raise ValueError(
            f"{pattern!r} is found in some layers of {path!r} and not in others, which "
            "are one array: say it of all of them, or do not scan the layers."
        )
    return True in found


def _after(path: str, end: int) -> int:
    """Where the index stands: behind the name in which a match ends."""
    if end and path[end - 1] == "/":
        return end
    slash = path.find("/", end)
    return slash + 1 if slash >= 0 else path.rfind("/") + 1


class Stacks:
    """The stacked leaves of a tree, and the way to a tree of single layers and back.

    Attributes:
      any: whether a leaf is stacked; if none is, trees pass as they are.
    """

    def __init__(self, tree: Any, stacked: str | None = None):
        """Looks at a tree.

        Args:
          tree: arrays or shapes.
          stacked: regex of further stacked leaves.
        """
        self._treedef: Any  # jax declares no methods for it
        flat, self._treedef = jax.tree_util.tree_flatten_with_path(tree)
        self._rows: list[tuple[Stack, tuple[int, ...]]] = []
        self._named: dict[str, tuple[Stack, tuple[int, ...]]] = {}
        for key_path, leaf in flat:
            path = path_string(key_path)
            stack = stack_of(path, np.ndim(leaf), stacked)
            row = stack, np.shape(leaf)[: len(stack.axes)]
            self._rows.append(row)
            self._named[path] = row
        self.any = any(stack.axes for stack, _ in self._rows)

    def sizes_of(self, path: str) -> tuple[int, ...]:
        """The numbers of layers that the leaf of a path stacks."""
        return self._named.get(path, (None, ()))[1]

    def layers_of(self, path: str) -> list[tuple[str, tuple[int, ...]]]:
        """The paths and the indices of the layers that the leaf of a path stacks."""
        stack, sizes = self._named.get(path, (None, ()))
        if stack is None:  # the path of a single layer, or of no leaf
            return [(path, ())]
        indices = itertools.product(*map(range, sizes))
        return [(stack.path(*index), index) for index in indices]

    def _layers(self) -> Iterator[tuple[int, tuple[int, ...], str]]:
        for number, (stack, sizes) in enumerate(self._rows):
            for index in itertools.product(*map(range, sizes)):
                yield number, index, stack.path(*index)

    def apart(self) -> contextlib.AbstractContextManager[None]:
        """Says to all that runs inside that it sees the layers one by one."""
        taken = (path for number, _, path in self._layers() if self._rows[number][1])
        return declare(layers=taken)

    def unstack(self, tree: Any) -> Any:
        """The tree with one leaf a layer, as nested dictionaries by name.

        Args:
          tree: a tree of this structure, of arrays, shapes, or anything that is one
            for all layers (None, a bool, a sharding).
        """
        if not self.any:
            return tree
        leaves = self._treedef.flatten_up_to(tree)
        nested: dict[str, Any] = {}
        for number, index, path in self._layers():
            *parents, name = path.split("/")
            node = nested
            for parent in parents:
                node = node.setdefault(parent, {})
            if name in node:
                raise ValueError(
                    f"two leaves are called {path!r} when stacked layers are taken "
                    "apart: give the stack, or its neighbor, another name."
                )
            node[name] = _layer(leaves[number], index)
        return nested

    def restack(self, tree: Any) -> Any:
        """The inverse of :meth:`unstack`, for a tree of any leaves."""
        if not self.any:
            return tree
        gathered: list[list[Any]] = [[] for _ in self._rows]
        for number, _, path in self._layers():
            node = tree
            for name in path.split("/"):
                node = node[name]
            gathered[number].append(node)
        return self._treedef.unflatten(
            _joined(layers, sizes)
            for layers, (_, sizes) in zip(gathered, self._rows, strict=True)
        )

    def fits(self, tree: Any) -> bool:
        """Whether a tree has the structure that was looked at."""
        return bool(self._treedef == jax.tree.structure(tree))

    def map(self, fn: Callable[[Any, int], Any], tree: Any) -> Any:
        """``fn(leaf, number of its stacked axes)``, of a tree or a prefix of one."""
        spread = jax.tree.map(
            lambda node, below: jax.tree.map(lambda _: node, below),
            tree,
            self._treedef.unflatten([0] * len(self._rows)),
            is_leaf=lambda node: node is None,
        )
        leaves = self._treedef.flatten_up_to(spread)
        return self._treedef.unflatten(
            fn(leaf, len(stack.axes))
            for leaf, (stack, _) in zip(leaves, self._rows, strict=True)
        )

    def call(self, fn: Callable[[Any], Any], tree: Any) -> Any:
        """``fn`` of the tree with every stacked leaf replaced by its first layer.

        What it asks of leaves, here and in the floors above, is answered for single
        layers.
        """
        token = _ONE_LAYER.set(True)
        try:
            return fn(self.first(tree))
        finally:
            _ONE_LAYER.reset(token)

    def first(self, tree: Any) -> Any:
        """The tree with every stacked leaf replaced by its first layer."""
        leaves = self._treedef.flatten_up_to(tree)
        return self._treedef.unflatten(
            _layer(leaf, (0,) * len(sizes)) if all(sizes) else leaf
            for leaf, (_, sizes) in zip(leaves, self._rows, strict=True)
        )


def _layer(leaf: Any, index: tuple[int, ...]) -> Any:
    if not index or not hasattr(leaf, "shape"):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[len(index) :], leaf.dtype)
    return leaf[index]


def _joined(layers: list[Any], sizes: tuple[int, ...]) -> Any:
    if not sizes:
        return layers[0]

    def join(*parts: Any) -> Any:
        if isinstance(parts[0], jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((*sizes, *parts[0].shape), parts[0].dtype)
        if not hasattr(parts[0], "shape"):
            return parts[0]
        whole = (np if isinstance(parts[0], np.ndarray) else jnp).stack(parts)
        return whole.reshape(*sizes, *parts[0].shape)

    return jax.tree.map(join, *layers)


def unstack(tree: Any, stacked: str | None = None) -> Any:
    """A tree with the paths and leaves of the model whose layers are not scanned.

    Args:
      tree: a tree of arrays or shapes.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      Nested dictionaries by name; the tree itself where no leaf is stacked.

    Raises:
      ValueError: if two leaves would have one path.

    Example:
      >>> tree = {"blocks": {"stacked": {"kernel": jnp.ones((2, 4, 3))}}}
      >>> jax.tree.map(jnp.shape, unstack(tree))
      {'blocks': {'0': {'kernel': (4, 3)}, '1': {'kernel': (4, 3)}}}
    """
    return Stacks(tree, stacked).unstack(tree)


def restack(tree: Any, like: Any, stacked: str | None = None) -> Any:
    """The inverse of :func:`unstack`.

    Args:
      tree: what ``unstack(like, stacked)`` returned, or a tree of its structure.
      like: the tree with stacked leaves.
      stacked: as in :func:`unstack`.

    Returns:
      A tree with the structure of ``like``.

    Example:
      >>> like = {"blocks": {"stacked": jnp.arange(2.0)}}
      >>> print(restack(unstack(like), like)["blocks"]["stacked"])
      [0. 1.]
    """
    return Stacks(like, stacked).restack(tree)
