"""The table of optimizers that the contract suite runs over, and what its tests share.

A new optimizer joins by one ``Row``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
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

    inner = optimizers.scale_by_adamp(b1=b1, b2=b2)
    return optimizers.mup(inner, halved, learning_rate, weight_decay=weight_decay)


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
        optimizers.lawn,
        {"learning_rate": 0.05, "free_steps": 1.0, "floor": 10.206},
        {"inner": optimizers.scale_by_adamp(b2=0.99)},
    ),
    Row(
        "hyperball",
        optimizers.hyperball,
        {"learning_rate": 0.01, "floor": 10.206},
        {"inner": optimizers.scale_by_adamp(b2=0.99), "constrained": matrices},
    ),
    Row(
        "norm_loss",
        optimizers.norm_loss,
        {"learning_rate": 0.05, "rate": 1e-5, "target": 2.0, "eps": 1e-8},
        {"inner": optimizers.scale_by_adamp(b2=0.99)},
    ),
    Row(
        "target_variance_rescaling",
        optimizers.target_variance_rescaling,
        {"learning_rate": 0.05, "target_std": 0.8, "ratio": 1.2, "every": 2.0},
        {"inner": optimizers.scale_by_adamp(b2=0.99), "constrained": matrices},
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
        optimizers.weight_norm,
        {"learning_rate": 0.05, "eps": 1e-8},
        {"inner": optimizers.scale_by_adamp(b2=0.99)},
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


def noisy_quadratic(weights: np.ndarray, step: int) -> tuple[float, np.ndarray]:
    """Value and gradient of an ill-conditioned loss whose center moves every step."""
    index = np.arange(weights.size)
    curvature = 10.0 ** np.linspace(-1.5, 0.5, weights.size)
    away = weights - 0.3 * np.cos(index + 7 * step)
    return 0.05 + 0.5 * np.sum(curvature * away**2), curvature * away


@pytest.fixture
def follow(x64):
    """Checks an optimizer, step by step in float64, against a NumPy oracle.

    ``follow(optimizer, oracle)``: the oracle is a generator ``oracle(weights, loss)``
    of (weights, step size) after each step, where ``loss(weights, step)`` is a value
    and a gradient and all parameters are one vector; here they are a mixed tree.
    """
    shapes = {
        "dense": {"kernel": (4, 3), "bias": (3,)},
        "conv": {"kernel": (2, 2, 2, 3)},
        "embed": {"embedding": (5, 3)},
        "query": {"kernel": (3, 2, 2)},
        "temperature": (),
    }
    tree = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    start = np.random.default_rng(0).normal(size=flat.size)

    def check(optimizer, oracle, steps=60, loss=noisy_quadratic):
        params = unravel(jnp.asarray(start))
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for step, (wanted, step_size) in zip(
            range(steps), oracle(start, loss), strict=False
        ):
            value, grads = loss(
                np.asarray(jax.flatten_util.ravel_pytree(params)[0]), step
            )
            updates, state = update(
                unravel(jnp.asarray(grads)), state, params, value=jnp.asarray(value)
            )
            params = optax.apply_updates(params, updates)
            got = jax.flatten_util.ravel_pytree(params)[0]
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-10)
            np.testing.assert_allclose(state.step_size, step_size, rtol=1e-10)

    return check


# A NumPy transcription of the projection, for AdamP and SGDP. It sees a leaf as a list
# of layers, each with one unit a row: (shape, number of input axes, stacked).
MIXED = {
    "dense/kernel": ((4, 3), 1, False),
    "conv/kernel": ((2, 1, 2, 3), 3, False),
    "embed/embedding": ((4, 3), 0, False),
    "attention/query/kernel": ((4, 3, 2), 1, False),
    "attention/out/kernel": ((3, 2, 4), 2, False),
    "blocks/kernel": ((2, 4, 3), 1, True),
    "dense/bias": ((3,), None, False),
    "blocks/bias": ((2, 3), None, True),
    "temperature": ((), None, False),
}


def to_layers(path: str, leaf: np.ndarray) -> list[np.ndarray]:
    """The layers of a leaf as (units, length) arrays."""
    shape, inputs, stacked = MIXED[path]
    layers = leaf if stacked else leaf[None]
    if path == "embed/embedding" or inputs is None:
        return list(layers)
    return [x.reshape(np.prod(shape[stacked:][:inputs]), -1).T for x in layers]


def from_layers(path: str, layers: list[np.ndarray]) -> np.ndarray:
    shape, inputs, _ = MIXED[path]
    if path != "embed/embedding" and inputs is not None:
        layers = [x.T for x in layers]
    return np.stack(layers).reshape(shape)


def project(w, g, p, delta, wd_ratio, eps):
    """The projected direction, the decay ratio and which view passed."""
    for view in ("unit", "layer"):
        W, G, P = (x if view == "unit" else x.reshape(1, -1) for x in (w, g, p))
        norm = np.sqrt(np.sum(W * W, axis=1, keepdims=True))
        grad_norm = np.sqrt(np.sum(G * G, axis=1, keepdims=True))
        dot = np.sum(G * W, axis=1, keepdims=True)
        cosine = np.abs(dot) / (np.maximum(grad_norm, eps) * np.maximum(norm, eps))
        if cosine.max() < delta / np.sqrt(W.shape[1]):
            u = W / (norm + eps)
            q = P - u * np.sum(u * P, axis=1, keepdims=True)
            return q.reshape(p.shape), wd_ratio, view
    return p, 1.0, "none"


class Oracle(NamedTuple):
    """Runs a NumPy rule and an optax optimizer side by side on the mixed tree."""

    project: Callable[..., Any] = project

    def compare(self, optimizer, rule, steps, atol):
        """Asserts equality after every step; returns the views that passed.

        ``rule(w, g, memory, step)`` takes one layer, a dict that it may keep state in,
        and the step from 1; it returns the new layer and the name of the view.
        """
        generator = np.random.default_rng(0)
        weights = {p: generator.normal(size=shape) for p, (shape, *_) in MIXED.items()}
        memory = {(path, i): {} for path in MIXED for i in range(2)}
        params = {path: jnp.asarray(w) for path, w in weights.items()}
        state, update, views = optimizer.init(params), jax.jit(optimizer.update), []
        for step in range(1, steps + 1):
            grads = {}
            for path in MIXED:
                layers, new = to_layers(path, weights[path]), []
                gradients = [
                    varied_gradient(w, generator.normal(size=w.shape), step)
                    for w in layers
                ]
                for i, (w, g) in enumerate(zip(layers, gradients, strict=True)):
                    moved, view = rule(w, g, memory[path, i], step)
                    new.append(moved)
                    views.append(view)
                grads[path] = jnp.asarray(from_layers(path, gradients))
                weights[path] = from_layers(path, new)
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
            for path, w in weights.items():
                np.testing.assert_allclose(
                    params[path], w, rtol=0, atol=atol, err_msg=f"{path}, step {step}"
                )
        return views


def varied_gradient(w, noise, step):
    """Orthogonal to every unit, to the layer as a whole, to neither, or zero."""
    if w.ndim < 2:
        return noise
    outcome = step % 4
    units = w / np.linalg.norm(w, axis=1, keepdims=True)
    if outcome == 0:
        return noise - units * np.sum(units * noise, axis=1, keepdims=True)
    if outcome == 1:
        uneven = noise + 3 * units * np.cos(np.arange(len(w)))[:, None]
        return uneven - w * np.sum(w * uneven) / np.sum(w * w)
    return noise + 2 * units if outcome == 2 or step < 20 else 0 * noise


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def toy_norm():
    """The final norm in the two-dimensional toy of the AdamP paper.

    Minimizes minus the cosine to a target for 500 steps from a unit vector at 172
    degrees to it.
    """

    def final_norm(optimizer):
        angle = np.deg2rad(172.0)
        first = jnp.array([[np.cos(angle)], [np.sin(angle)]])

        def loss(w):
            return -w[0, 0] / jnp.sqrt(jnp.sum(w**2))

        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(jax.grad(loss)(w), state, w)
            return (optax.apply_updates(w, updates), state), None

        (w, _), _ = jax.lax.scan(step, (first, optimizer.init(first)), length=500)
        return jnp.linalg.norm(w)

    return final_norm
