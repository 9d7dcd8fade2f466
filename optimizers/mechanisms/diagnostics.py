"""What a method knows of its own step, as named scalars.

Two ways lead here, for two kinds of numbers. What a state holds anyway it says itself:
its class is decorated with :func:`tells`. What a step finds out and forgets, such as
the share of units that AdamP projected, it hands to :func:`note`, which does nothing
unless somebody listens; a field of the state for it would change the layout of
checkpoints and be computed at every step, read or not.
"""

import contextlib
import contextvars
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from gnomon.optimizers._names import modules_by_name
from gnomon.parameters.paths import path_string

__all__ = ["Observations", "diagnostics", "observed"]

State = TypeVar("State", bound=type)
Tell = Callable[[Any], "jax.Array | None"]
TELLS = "_diagnostics"
_WORDS: dict[str, str] = {}


def tells(name: str, words: str, tell: Tell | None = None) -> Callable[[State], State]:
    """Decorates the class of a state: what of it is a diagnostic.

    Args:
      name: its name.
      words: what it is, in the words of a chart's legend.
      tell: a function of the state that gives it, or None where this state has nothing
        of it; by default the field of this name, which is one number.

    Raises:
      ValueError: if another state means something else by the name: charts compare
        methods.
    """
    means(name, words)
    own = tell or (lambda state: getattr(state, name))

    def decorate(state: State) -> State:
        setattr(state, TELLS, {name: own, **getattr(state, TELLS, {})})
        return state

    return decorate


def means(name: str, words: str) -> str:
    """Says what a diagnostic is; returns its name, for :func:`note`."""
    if _WORDS.setdefault(name, words) != words:
        raise ValueError(f"{name!r} means {_WORDS[name]!r}, not {words!r}: rename one")
    return name


def meanings() -> dict[str, str]:
    """What the diagnostics of this package are, by name; loads all of its methods.

    >>> meanings()["step_size"]
    'step size of the update, as the value of the loss asks for it'
    """
    for module in sorted(set(modules_by_name().values())):
        importlib.import_module(module)
    return dict(_WORDS)


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """What the states of an optimizer say of its last step.

    Chains, wrappers, masks and states of other packages are looked through.

    Args:
      state: the state of any optimizer, or any tree that holds one.

    Returns:
      Scalars by name; a name that several states have is preceded by their paths.

    Example:
      >>> import optax
      >>> from gnomon.optimizers import sps
      >>> optimizer = optax.chain(optax.clip(1.0), sps(c=0.5))
      >>> w = jnp.array([1.0, 2.0])  # minimizes the square of it
      >>> _, state = optimizer.update(2 * w, optimizer.init(w), w, value=5.0)
      >>> for name, value in diagnostics(state).items():
      ...     print(name, value)
      step_size 5.0
    """
    found = list(_told(state, ()))
    names = [name for _, name, _ in found]
    return {
        name if names.count(name) == 1 else f"{path_string(path)}/{name}": value
        for path, name, value in found
    }


def _told(
    node: Any, path: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], str, jax.Array]]:
    for name, tell in getattr(type(node), TELLS, {}).items():
        value = tell(node)
        if value is not None:
            yield path, name, value
    inside = jax.tree_util.tree_leaves_with_path(
        node, is_leaf=lambda x: x is not node and hasattr(type(x), TELLS)
    )
    for below, leaf in inside:
        if leaf is not node and hasattr(type(leaf), TELLS):
            yield from _told(leaf, path + below)


def mean_of(tree: Any) -> jax.Array | None:
    """The mean of all numbers of a tree; None of one that has none."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.size(leaf)]
    if not leaves:
        return None
    total = sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in leaves)
    return jnp.asarray(total / sum(jnp.size(leaf) for leaf in leaves))


def largest_of(tree: Any) -> jax.Array | None:
    """The largest number of a tree; None of one that has none."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.size(leaf)]
    return jnp.max(jnp.stack([jnp.max(leaf) for leaf in leaves])) if leaves else None


@jax.tree_util.register_pytree_node_class
class Observations(dict[str, jax.Array]):
    """Shares by name; a pytree, which a compiled function can return.

    Attributes:
      said: what parts of the optimizer said of their terms, in the order of the step,
        each under the class of its state; see :func:`gnomon.optimizers.balance`.
    """

    said: list[tuple[type, Mapping[str, jax.Array]]]

    def __init__(
        self,
        shares: Mapping[str, jax.Array] | Iterable[tuple[str, jax.Array]] = (),
        said: Iterable[tuple[type, Mapping[str, jax.Array]]] = (),
    ):
        """Joins the two."""
        super().__init__(shares)
        self.said = list(said)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[type, ...]]:
        """For JAX."""
        parts = tuple(part for part, _ in self.said)
        return (dict(self), [terms for _, terms in self.said]), parts

    @classmethod
    def tree_unflatten(cls, parts: tuple[type, ...], children: Sequence[Any]) -> Self:
        """For JAX."""
        return cls(children[0], zip(parts, children[1], strict=True))


class _Listener(NamedTuple):
    trace: Any
    sums: dict[str, tuple[jax.Array, int]]
    said: list[tuple[type, Mapping[str, jax.Array]]]


_LISTENER: contextvars.ContextVar[_Listener | None] = contextvars.ContextVar(
    "listener", default=None
)


def _listener() -> _Listener | None:
    """Who listens to this very program, and not to one around it."""
    found = _LISTENER.get()
    return found if found and found.trace == get_opaque_trace_state() else None


@contextlib.contextmanager
def observed() -> Iterator[Observations]:
    """Collects what the steps taken inside find out: shares, by name.

    Of a step in a program that is compiled, the numbers belong to the same program:
    they are returned from it as all else is.

    Yields:
      A dict, filled when the context is left:

      * ``projected``: of the units that AdamP and SGDP test, the share whose radial
        part was removed;
      * ``constrained``: of the numbers in the leaves that a constraint selects, the
        share that it moved: 0 before LAWN's switch and 1 after it, the leaves that
        target variance rescaling rescaled, the units that were above their bound;
      * ``clipped``: of the units that adaptive clipping looks at, the share whose
        gradient was too long;
      * ``captured``: of the squared gradients of the matrices that a method projects,
        the share inside of their subspaces, the mean over matrices;
      * ``floored``: of the norms that an update floor looks at, the share that it
        raised.

      A fused kernel tells nothing: there the sums stay on the chip, and to give them
      out would cost every step, observed or not. ``implementation="xla"`` tells.

    Example:
      >>> from gnomon.optimizers import adamp
      >>> w = {"kernel": jnp.array([[3.0], [4.0]])}
      >>> g = {"kernel": jnp.array([[4.0], [-3.0]])}  # at right angles to it
      >>> optimizer = adamp(0.1)
      >>> with observed() as seen:
      ...     _ = optimizer.update(g, optimizer.init(w), w)
      >>> print(seen["projected"])
      1.0
    """
    found = Observations()
    sums: dict[str, tuple[jax.Array, int]] = {}
    token = _LISTENER.set(_Listener(get_opaque_trace_state(), sums, found.said))
    try:
        yield found
    finally:
        _LISTENER.reset(token)
    found |= {name: part / max(whole, 1) for name, (part, whole) in sums.items()}


def note(name: str, share: Callable[[], tuple[jax.Array, int]]) -> None:
    """Adds a share to what :func:`observed` collects.

    Nothing is added inside of a loop or a branch of the program that is observed: the
    number would not leave it.

    Args:
      name: its name, once :func:`means` has said what it is.
      share: gives how many there are, and of how many; not called if nobody listens.
    """
    listener = _listener()
    if listener is not None:
        part, whole = share()
        before, total = listener.sums.get(name, (jnp.zeros([], jnp.float32), 0))
        listener.sums[name] = before + part.astype(jnp.float32), total + whole


def say(state: type, terms: Callable[[], Mapping[str, jax.Array]]) -> None:
    """Adds what a part of the optimizer says to what :func:`observed` collects.

    Args:
      state: the class of its state.
      terms: gives the numbers by name; not called if nobody listens.
    """
    listener = _listener()
    if listener is not None:
        listener.said.append((state, terms()))
