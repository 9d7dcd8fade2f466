"""One optimizer under contract, and the problem that it is run on."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon import optimizers


class Row(NamedTuple):
    """One optimizer under contract."""

    name: str
    # make(**kwargs, **hyperparameters) is the optimizer
    make: Callable[..., optax.GradientTransformationExtraArgs]
    # numbers, given as they are or as tracers; they converge on the targets
    hyperparameters: Mapping[str, float]
    # what stays static: flags, masks, rules
    kwargs: Mapping[str, Any] = {}
    # extra args it reads: names of ``Problem.extra_args``
    reads: tuple[str, ...] = ()
    # False: update works without params
    needs_params: bool = True
    # steps that bring the targets to a thousandth of their first loss
    steps: int = 600
    # the hyperparameter that is a learning rate, or the bound of one
    rate: str = "learning_rate"
    # public functions that are under contract with it, where ``make`` is none itself
    # or is one that is built of others
    covers: tuple[str, ...] = ()

    @property
    def is_optax(self) -> bool:
        return self.make.__module__.startswith("optax")

    def build(self, **changes) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(
            self.make(**{**self.kwargs, **self.hyperparameters, **changes})
        )


# What the rows of methods that take their step size from the loss have in common.
POLYAK: dict[str, Any] = dict(
    reads=("value",), needs_params=False, rate="max_learning_rate"
)


def around_adamp(wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper of a complete optimizer, as a function of its learning rate too."""

    def make(*, learning_rate, **given):
        return wrapper(optimizers.adamp(learning_rate, b2=0.99), **given)

    # What inject_hyperparams reads: the wrapper's own, with the rate for the optimizer.
    own = inspect.signature(wrapper).parameters.values()
    rate = inspect.Parameter("learning_rate", inspect.Parameter.KEYWORD_ONLY)
    rest = [p.replace(kind=rate.kind) for p in own if p.name != "inner"]
    make.__signature__ = inspect.Signature([rate, *rest])
    return make


def matrices(params):
    """A mask of the leaves of rank two, wherever they are called."""
    return jax.tree.map(lambda w: w.ndim == 2, params)


@functools.cache
def _compiled(loss: Callable[[Any], jax.Array]) -> Callable[..., Any]:
    """Its value and gradient: a program a structure of parameters, for all rows."""
    return jax.jit(jax.value_and_grad(loss))


class Problem(NamedTuple):
    """A loss on a tree, and the extra args that training code could pass with it."""

    params: Any
    loss: Callable[[Any], jax.Array]

    def extra_args(self, params) -> dict[str, Any]:
        value, grad = _compiled(self.loss)(params)
        return {"value": value, "grad": grad, "obj_fn": self.loss}

    def step(self, row: Row, optimizer, params, state):
        """One training step with the extra args that the row reads."""
        extra = self.extra_args(params)
        read = {name: extra[name] for name in row.reads}
        updates, state = optimizer.update(extra["grad"], state, params, **read)
        return optax.apply_updates(params, updates), state

    def run(self, row: Row, optimizer, steps: int = 3):
        """(params, state) after some steps from ``params``, taken one by one."""
        params, state = self.params, optimizer.init(self.params)
        for _ in range(steps):
            params, state = self.step(row, optimizer, params, state)
        return params, state

    def scan(self, row: Row, optimizer, steps: int = 3):
        """:meth:`run` for use under jit."""

        def step(carry, _):
            return self.step(row, optimizer, *carry), None

        first = self.params, optimizer.init(self.params)
        return jax.lax.scan(step, first, length=steps)[0]


def quadratic(params) -> jax.Array:
    """Distance to a fixed point whose coordinates are all different."""

    def distance(leaf):
        target = 0.1 * np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape)
        return 0.5 * jnp.sum((leaf.astype(jnp.float32) - target) ** 2)

    return sum(distance(leaf) for leaf in jax.tree.leaves(params) if leaf.size)
