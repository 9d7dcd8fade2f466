"""The table of optimizers that the contract suite runs over.

A new optimizer joins by one ``Row``.
"""

import inspect
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
    # the hyperparameter that is a learning rate, or the bound of one
    rate: str = "learning_rate"

    @property
    def is_optax(self) -> bool:
        return self.make.__module__.startswith("optax")

    def given(self, name: str) -> Any:
        return ARGUMENTS[name]

    def build(self, **changes) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(
            self.make(**{**self.kwargs, **self.hyperparameters, **changes})
        )


def sania_adam(*, b2, eps, max_learning_rate):
    metric = optimizers.scale_by_adam_sqr(b2, eps)
    return optimizers.sania(metric, max_learning_rate=max_learning_rate)


def sania_hutchinson(*, b2, eps, max_learning_rate):
    metric = optimizers.scale_by_hutchinson(b2, eps)
    return optimizers.sania(metric, max_learning_rate=max_learning_rate)


def quantized_adamp(*, learning_rate, b1, b2, weight_decay):
    """With every leaf coded, in blocks of which a leaf has several."""
    inner = optimizers.adamp(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)
    return optimizers.quantize_moments(inner, min_size=0, block=8)


# What the rows of methods that take their step size from the loss have in common.
POLYAK: dict[str, Any] = dict(
    reads=("value",), needs_params=False, rate="max_learning_rate"
)


def wider_adamp(*, learning_rate, b1, b2, weight_decay):
    """As in a network that is twice as wide as the one it was tuned for."""

    def halved(params):
        def half(w):
            shape = (size if size % 2 else size // 2 for size in w.shape)
            return jax.ShapeDtypeStruct(tuple(shape), w.dtype)

        return jax.tree.map(half, params)

    # A product in float32, as a decay times a learning rate is.
    decay = jnp.asarray(learning_rate, "float32") * jnp.asarray(weight_decay, "float32")
    inner = optimizers.adamp(learning_rate, b1=b1, b2=b2)
    return optimizers.mup(inner, halved, independent_decay=decay)


def around_adamp(wrapper):
    def make(*, learning_rate, **given):
        return wrapper(optimizers.adamp(learning_rate, b2=0.99), **given)

    return make


def matrices(params):
    """A mask of the leaves of rank two, wherever they are called."""
    return jax.tree.map(lambda w: w.ndim == 2, params)


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
        # Long after it has converged the second moment is so small that it jumps.
        steps=300,
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
    Row(
        "fadam",
        optimizers.fadam,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-8,
            "weight_decay": 1e-4,
            "clip": 1.0,
            "p": 0.5,
        },
    ),
    Row(
        "fadam_port",
        optimizers.fadam,
        {"learning_rate": 0.05, "b2": 0.99, "weight_decay": 1e-4, "p": 0.6},
        {"eps_rule": "max", "eps_to_2p": False, "clip_rule": "scale"},
    ),
    Row(
        "sps",
        optimizers.sps,
        {"max_learning_rate": 1.0, "c": 0.5, "init_step_size": 0.1, "n_batches": 5.0},
        {"variant": "smooth"},
        **POLYAK,
    ),
    Row(
        "alig",
        optimizers.alig,
        {"max_learning_rate": 0.02, "momentum": 0.9, "eps": 1e-5, "max_norm": 30.0},
        **{**POLYAK, "needs_params": True},
    ),
    Row(
        "alr_hb",
        optimizers.alr_hb,
        {"f_min": 0.0, "momentum": 0.9},
        **{**POLYAK, "rate": "f_min"},
    ),
    Row(
        "alr_mag",
        optimizers.alr_mag,
        {"f_min": 0.0, "momentum": 0.9},
        **{**POLYAK, "rate": "f_min"},
    ),
    Row(
        "alr_shb",
        optimizers.alr_shb,
        {"max_learning_rate": 0.1, "momentum": 0.9, "c": 1.0},
        **POLYAK,
    ),
    Row(
        "alr_smag",
        optimizers.alr_smag,
        {"max_learning_rate": 0.1, "momentum": 0.9, "c": 0.5},
        **POLYAK,
    ),
    Row(
        "momsps",
        optimizers.momsps,
        {"max_learning_rate": 1.0, "momentum": 0.9, "c": 1.0, "growth": 2.0},
        {"variant": "smooth"},
        **POLYAK,
    ),
    Row(
        "momo",
        optimizers.momo,
        {"learning_rate": 1.0, "b1": 0.9, "weight_decay": 1e-6},
        {"bias_correction": True},
        reads=("value",),
    ),
    Row(
        "momo_adam",
        optimizers.momo_adam,
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-6},
        reads=("value",),
    ),
    Row(
        "sania",
        sania_adam,
        {"b2": 0.9, "eps": 1.0, "max_learning_rate": 1.0},
        **POLYAK,
    ),
    Row(
        "sania_hutchinson",
        sania_hutchinson,
        {"b2": 0.9, "eps": 0.1, "max_learning_rate": 0.5},
        reads=("value", "obj_fn"),
        rate="max_learning_rate",
    ),
    # A norm that is held must be that of the target, 0.1 * arange(32): 10.206.
    Row(
        "lawn",
        around_adamp(optimizers.lawn),
        {"learning_rate": 0.05, "free_steps": 2.0, "floor": 10.206},
    ),
    Row(
        "hyperball",
        optimizers.hyperball,
        {"learning_rate": 0.01, "floor": 10.206},
        {"direction": optimizers.scale_by_adamp(b2=0.99), "constrained": matrices},
    ),
    Row(
        "norm_loss",
        optimizers.norm_loss,
        {"learning_rate": 0.05, "rate": 1e-5, "target": 2.0, "eps": 1e-8},
        {"direction": optimizers.scale_by_adamp(b2=0.99)},
    ),
    Row(
        "target_variance_rescaling",
        around_adamp(optimizers.target_variance_rescaling),
        {"learning_rate": 0.05, "target_std": 0.8, "ratio": 1.2, "every": 2.0},
        {"constrained": matrices},
    ),
    Row(
        "quantize_moments",
        quantized_adamp,
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-5},
    ),
    Row(
        "mup",
        wider_adamp,
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-5},
    ),
    Row(
        "weight_norm",
        around_adamp(optimizers.weight_norm),
        {"learning_rate": 0.05, "eps": 1e-8},
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


@pytest.fixture(scope="module")
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


# Once a module, so that the tests of one row follow each other and share a reference.
@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request):
    row = request.param
    # optax's own multiply integers by floats, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard" if row.is_optax else "strict"):
        yield row


@pytest.fixture(scope="module")
def reference(row, problem):
    """The (params, state) after three steps built and taken outside of jit."""
    return problem.run(row, row.build())


# What an argument without a default gets, and a wrapper inside.
ARGUMENTS: dict[str, Any] = dict(
    learning_rate=0.1,
    max_learning_rate=0.1,
    free_steps=1,
    inner=optax.adam(0.1),
    direction=optax.scale_by_adam(),
    constraint=optimizers.fixed_norm(),
    forward=lambda tree: jax.tree.map(lambda x: 2 * x, tree),
    inverse=lambda tree: jax.tree.map(lambda x: x / 2, tree),
    base=lambda params: params,
    rule=optimizers.mup_rule(),
    preconditioner=optax.scale_by_rms(),
)
# Where the defaults would leave a small tree alone.
SMALL: dict[str, dict[str, Any]] = {
    "quantize_moments": dict(min_size=0, block=8),
    "adamp_8bit": dict(min_size=0, block=8),
    "adamw_8bit": dict(min_size=0, block=8),
    "target_variance_rescaling": dict(target_std=0.1, every=1),
}


class Public(NamedTuple):
    """One public function that makes a transform, built from its signature."""

    name: str
    make: Callable[..., Any]

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.make).parameters

    @property
    def inside(self) -> str | None:
        """What a wrapper calls what it is around."""
        names = [n for n in ("inner", "direction") if n in self.parameters]
        return names[0] if names else None

    def given(self, name: str) -> Any:
        return ARGUMENTS[name]

    def build(self, **changes) -> optax.GradientTransformationExtraArgs:
        given = dict(SMALL.get(self.name, {}))
        for name, parameter in self.parameters.items():
            if parameter.default is parameter.empty or name == self.inside:
                given[name] = ARGUMENTS[name]
        return self.make(**given | changes)

    def around(self, make: Callable[..., Any]) -> Any:
        """The wrapper around an optimizer, or around the direction that this takes."""
        if self.inside == "inner":
            return self.build(inner=make(0.1))
        return self.build(direction=optax.chain(make(1.0), optax.scale(-1.0)))


def makes_a_transform(name: str) -> bool:
    made = getattr(optimizers, name)
    if not inspect.isfunction(made):
        return False
    returned = inspect.signature(made).return_annotation
    return isinstance(returned, type) and issubclass(
        returned, optax.GradientTransformation
    )


PUBLIC = [
    Public(name, getattr(optimizers, name))
    for name in optimizers.__all__
    if makes_a_transform(name)
]
# By functions of a learning rate.
INNERS: dict[str, Callable[..., Any]] = {
    "sgd": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
    "adamw": optax.adamw,
    "adamp": optimizers.adamp,
    "momo": optimizers.momo,
}


@pytest.fixture(params=PUBLIC, ids=lambda public: public.name)
def public(request):
    with jax.numpy_dtype_promotion("standard"):  # for what optax has inside
        yield request.param


@pytest.fixture(params=[p for p in PUBLIC if p.inside], ids=lambda public: public.name)
def wrapper(request):
    with jax.numpy_dtype_promotion("standard"):
        yield request.param


@pytest.fixture(
    params=[(public, None) for public in PUBLIC if not public.inside]
    + [(public, name) for public in PUBLIC if public.inside for name in INNERS],
    ids=lambda pair: f"{pair[0].name}({pair[1] or ''})",
)
def transform(request):
    """Every public transform, and every wrapper around several optimizers."""
    public, inner = request.param
    with jax.numpy_dtype_promotion("standard"):
        yield public.build() if inner is None else public.around(INNERS[inner])
