"""Layers that are stacked in one leaf are a list of layers: the same in all layouts.

A network as a list of layers (``LIST``), with these layers under a name that declares a
stack (``NAMED``), and under another name that ``stacked=STACKED`` declares (``TOLD``).

In ``LAYERS`` of a method's test file a function of the keywords that declare the stack
builds an optimizer, or a constraint; for a wrapper its first argument is the inner
optimizer, for a function of the parameters these. One that takes no keywords is not
asked to build for ``TOLD``. ``None`` stands for what has a test of its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import unstack

DEPTH = 2
FAST = {"xla_backend_optimization_level": 0}
STACKED = "^blocks/"


def _draw():
    """A network of layers in a list; their sizes and gradients differ by far."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    def block(i):
        return {
            "query": {"kernel": (1 + 2 * i) * normal(4, 2, 3)},
            "up": {"kernel": normal(6, 4) / (1 + 2 * i), "bias": normal(4)},
        }

    return {
        "embed": {"embedding": normal(6, 4)},
        "blocks": {str(i): block(i) for i in range(DEPTH)},
    }


LIST = _draw()
STACK = jax.tree.map(lambda *x: np.stack(x), *LIST["blocks"].values())
NAMED = {**LIST, "blocks": {"stacked": STACK}}
TOLD = {**LIST, "blocks": STACK}
HALF = jax.tree.map(
    lambda w: jax.ShapeDtypeStruct([n // 2 if n == 4 else n for n in w.shape], w.dtype),
    {"list": LIST, "named": NAMED, "told": TOLD},
)


def base(params):
    """A model of half the width, whatever the layout of this one."""
    blocks = params["blocks"]
    if "0" in blocks:
        return HALF["list"]
    return HALF["named" if "stacked" in blocks else "told"]


def by_rank(params):
    """A mask that many a training script has: matrices decay."""
    return jax.tree.map(lambda w: w.ndim > 1, params)


def descending(direction):
    return optax.chain(direction, optax.scale(-0.1))


def ascending(optimizer):
    return optax.chain(optimizer, optax.scale(-1.0))


def loss(tree):
    """Of single layers: each leaf has a scale and a tilt of its own."""
    total = 0.0
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        tilt = np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype(np.float32)
        total = total + jnp.mean((leaf - tilt) ** 2) * (1 + i % 5)
    return total


def by_path_of(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_string(path): leaf for path, leaf in leaves}


def by_path(tree):
    return {path: np.asarray(leaf) for path, leaf in by_path_of(tree).items()}


def train(optimizer, params, stacked=None, steps=3):
    def value_fn(tree):
        return loss(unstack(tree, stacked))

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(value_fn)(params)
        extra = dict(value=value, grad=grads, obj_fn=value_fn)
        updates, state = optimizer.update(grads, state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    optimizer = optax.with_extra_args_support(optimizer)
    params = jax.tree.map(jnp.asarray, params)
    start = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, start, length=steps)
    return unstack(params, stacked)


def check(make, explicit, rtol=2e-5):
    """The same weights from all layouts, in one program."""

    @functools.partial(jax.jit, compiler_options=FAST)
    def all_layouts():
        found = [train(make(), LIST), train(make(), NAMED)]
        if explicit:
            found.append(train(make(stacked=STACKED), TOLD, STACKED))
        return found

    with jax.numpy_dtype_promotion("standard"):  # optax: a float to an int32 count
        wanted, *others = map(by_path, all_layouts())
    start = by_path(LIST)
    moved = {path for path in wanted if np.any(wanted[path] != start[path])}
    assert {path for path in wanted if path.startswith("blocks/")} <= moved
    for other in others:
        assert other.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(
                other[path], leaf, rtol=rtol, atol=rtol, err_msg=path
            )


def same(make):
    """Asserts that a function of the parameters gives the same in all layouts."""
    wanted = by_path(make(LIST))
    for params, stacked in ((NAMED, None), (TOLD, STACKED)):
        declared = {} if stacked is None else {"stacked": stacked}
        found = by_path(unstack(make(params, **declared), stacked))
        assert found.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(found[path], leaf, rtol=1e-5, err_msg=path)
