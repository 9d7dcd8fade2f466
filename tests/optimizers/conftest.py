"""Oracles in NumPy that the tests of several optimizers share."""

import pathlib
import runpy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


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
def recorded(x64):
    """The largest difference from a trajectory in ``tests/golden/torch_methods.npz``.

    ``recorded(run, optimizer)`` takes all steps on the same gradients; the leaves are
    those of a dense layer.
    """
    script = runpy.run_path(str(GOLDEN / "record_torch_methods.py"))
    with np.load(GOLDEN / "torch_methods.npz") as record:
        golden = dict(record)

    def compare(run, optimizer):
        def own(prefix, at=...):
            leaf = {n: golden[f"{prefix}/{n}"][at] for n in script["SHAPES"]}
            return {n: jnp.asarray(w, float).T for n, w in leaf.items()}

        @jax.jit
        def step(params, state, noise):
            grads = jax.tree.map(script["gradient"], params, noise)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        params = own("weights")
        state, largest = optimizer.init(params), 0.0
        for i in range(script["STEPS"]):
            params, state = step(params, state, own("noise", i))
            if i + 1 in script["RECORDED"]:
                wanted = own(run, script["RECORDED"].index(i + 1))
                apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), params, wanted)
                largest = max(largest, *map(float, jax.tree.leaves(apart)))
        return largest

    return compare


@pytest.fixture
def no_gpu_kernels(monkeypatch):
    """As with a jax that is too old for them, whichever jax this is."""
    monkeypatch.setattr("gnomon.kernels.engine.choice.GPU_NEEDS_JAX", (99, 0))


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
