"""The table of optimizers that the contract suite runs over, and what its tests share.

A new optimizer joins by one ``Row``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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

    @property
    def is_optax(self) -> bool:
        return self.make.__module__.startswith("optax")

    def build(self, **changes) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(
            self.make(**{**self.kwargs, **self.hyperparameters, **changes})
        )


ROWS = (
    Row(
        "adamw",
        optax.adamw,
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-5},
    ),
    Row(
        "adamp",
        optimizers.adamp,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-8,
            "weight_decay": 1e-5,
            "delta": 0.1,
            "wd_ratio": 0.1,
        },
    ),
    Row(
        "adamp_nesterov",
        optimizers.adamp,
        {"learning_rate": 0.05, "b2": 0.99, "weight_decay": 1e-5},
        {"nesterov": True},
    ),
    Row(
        "sgdp",
        optimizers.sgdp,
        {
            "learning_rate": 0.01,
            "momentum": 0.9,
            "dampening": 0.1,
            "weight_decay": 1e-6,
            "delta": 0.1,
            "wd_ratio": 0.1,
        },
        {"nesterov": True},
    ),
    Row(
        "sgdp_projected_buffer",
        optimizers.sgdp,
        {"learning_rate": 0.01, "momentum": 0.9},
        {"project_buffer": True},
    ),
)


class Problem(NamedTuple):
    """A loss on a tree, and the extra args that training code could pass with it."""

    params: Any
    loss: Callable[[Any], jax.Array]

    def extra_args(self, params) -> dict[str, Any]:
        value, grad = jax.value_and_grad(self.loss)(params)
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


@pytest.fixture
def problem() -> Problem:
    """A dense layer and an embedding, small: every row compiles a few programs."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "dense": {
            "kernel": jax.random.normal(keys[0], (8, 4)),
            "bias": jax.random.normal(keys[1], (4,)),
        },
        "embed": {"embedding": jax.random.normal(keys[2], (8, 4))},
    }
    return Problem(params, quadratic)


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request):
    row = request.param
    # optax's own multiply integers by floats, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard" if row.is_optax else "strict"):
        yield row


@pytest.fixture
def reference(row, problem):
    """The (params, state) after three steps built and taken outside of jit."""
    return problem.run(row, row.build())
