"""Layers that are stacked in one leaf are treated as a list of layers, by everything.

Every public name of the optimizers is in one of the tables below: a new one without a
row fails. Each row is run on a list of layers, on the same layers under a name that
declares a stack, and on them under another name that ``stacked=`` declares.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers as o
from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import unstack

LAYERS = 3
FAST = {"xla_backend_optimization_level": 0}
STACKED = "^blocks/"


def draw():
    """A network of layers in a list; their sizes and gradients differ by far."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    def block(i):
        return {
            "query": {"kernel": (i + 1) * normal(4, 2, 3), "bias": normal(2, 3)},
            "up": {"kernel": normal(6, 4) / (i + 1), "bias": normal(4)},
            "norm": {"scale": normal(4)},
        }

    return {
        "embed": {"embedding": normal(6, 4)},
        "blocks": {str(i): block(i) for i in range(LAYERS)},
    }


LIST = draw()
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


# One function a method, of what declares the stack: nothing or stacked=STACKED.
METHODS = {
    "adamp": lambda **s: o.adamp(0.1, weight_decay=0.1, weight_decay_mask=by_rank, **s),
    "scale_by_adamp": lambda **s: descending(o.scale_by_adamp(**s)),
    "sgdp": lambda **s: o.sgdp(
        0.1, momentum=0.9, weight_decay=0.1, weight_decay_mask=by_rank, **s
    ),
    "scale_by_sgdp": lambda **s: descending(o.scale_by_sgdp(momentum=0.9, **s)),
    "fadam": lambda **s: o.fadam(0.1, weight_decay=0.1, clip=0.3, **s),
    "scale_by_fadam": lambda **s: descending(o.scale_by_fadam(clip=0.3, **s)),
    "adamp_8bit": lambda **s: o.adamp_8bit(0.1, min_size=7, block=8, **s),
    "adamw_8bit": lambda **s: o.adamw_8bit(0.1, min_size=7, block=8, **s),
    "add_norm_loss": lambda **s: descending(o.add_norm_loss(0.5, view="layer", **s)),
    "scale_by_width": lambda **s: descending(
        o.scale_by_width(base, o.mup_rule("adam"), **s)
    ),
}
# Methods that look at no leaf by itself: at single numbers, or at all of the tree.
PLAIN = {
    "alig": lambda: o.alig(0.1, momentum=0.9),
    "alr_hb": lambda: o.alr_hb(momentum=0.5),
    "alr_mag": lambda: o.alr_mag(momentum=0.5),
    "alr_shb": lambda: o.alr_shb(0.1, momentum=0.5),
    "alr_smag": lambda: o.alr_smag(0.1, momentum=0.5),
    "momo": lambda: o.momo(1.0),
    "momo_adam": lambda: o.momo_adam(0.1, weight_decay=0.1, weight_decay_mask=by_rank),
    "momsps": lambda: o.momsps(),
    "sps": lambda: o.sps(1.0),
    "scale_by_adagrad_sqr": lambda: o.sania(o.scale_by_adagrad_sqr(1.0)),
    "scale_by_adam_sqr": lambda: o.sania(o.scale_by_adam_sqr(0.9, 1.0)),
    "scale_by_hutchinson": lambda: o.sania(o.scale_by_hutchinson(0.9, 1.0)),
    "scale_by_newton": lambda: o.sania(o.scale_by_newton(1.0, steps=3)),
}
WRAPPERS = {
    "constrain": lambda i, **s: o.constrain(i, o.max_norm(1.0, **s)),
    "lawn": lambda i, **s: o.lawn(i, free_steps=1, **s),
    "hyperball": lambda i, **s: o.hyperball(ascending(i), 0.1, **s),
    "norm_loss": lambda i, **s: o.norm_loss(ascending(i), 0.1, rate=0.1, **s),
    "project_radial": lambda i, **s: o.project_radial(i, weight_decay=0.01, **s),
    "target_variance_rescaling": lambda i, **s: o.target_variance_rescaling(
        i, target_std=0.3, every=2, zero_bias=True, scale_with_depth=True, **s
    ),
    "weight_norm": lambda i, **s: o.weight_norm(i, **s),
    "quantize_moments": lambda i, **s: o.quantize_moments(i, min_size=7, block=8, **s),
    "mup": lambda i, **s: o.mup(i, base, **s),
    "standard_parameterization": lambda i, **s: o.standard_parameterization(
        i, base, **s
    ),
    "bucket_leaves": lambda i: o.bucket_leaves(i, max_size=12),
    "reparameterize": lambda i: o.reparameterize(i, cubes, roots),
    "sania": lambda i: o.sania(ascending(i)),
    "layered": lambda i, **s: o.layered(i, **s),
    "per_layer": lambda i, **s: o.per_layer(i, **s),
}
SETS = {
    "fixed_norm": lambda **s: o.fixed_norm(**s),
    "max_norm": lambda **s: o.max_norm(1.0, view="layer", **s),
    "unit_sphere": lambda **s: o.unit_sphere(**s),
    "target_std": lambda **s: o.target_std(0.3, **s),
}
INNER = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1, mask=by_rank),
    "adamp": lambda: o.adamp(0.1),
    "lamb": lambda: optax.lamb(0.1),
}
# Public names that are no method of a tree of leaves.
OTHERS = {
    *"Axes Buckets Constraint FusedTransformation Growth WeightNormLatents".split(),
    *(name for name in o.__all__ if name.endswith("State")),
    # The one resolver, and functions of one array and its axes.
    *"cosine geometry project_tangent resolve_axes retract unit_axes unit_norm".split(),
    # Functions of numbers, and modules.
    *"constraints lawn_schedule mup_rule standard_rule".split(),
    # Carriers of others' rules.
    *"apply_fused leafwise".split(),
}
# Functions of a tree, tested below.
FUNCTIONS = {
    *"data_dependent_init hidden_matrices layer_index_rescaling".split(),
    *"learning_rate_factors mup_initialization width_growth".split(),
}


def descending(direction):
    return optax.chain(direction, optax.scale(-0.1))


def ascending(optimizer):
    return optax.chain(optimizer, optax.scale(-1.0))


def cubes(tree):
    return jax.tree.map(lambda z: z**3 + z, tree)


def roots(tree):
    """Newton's method, from the weight itself."""

    def root(w):
        z = w
        for _ in range(30):
            z = z - (z**3 + z - w) / (3 * z**2 + 1)
        return z

    return jax.tree.map(root, tree)


def test_every_public_name_has_a_row():
    tables = (METHODS, PLAIN, WRAPPERS, SETS, OTHERS, FUNCTIONS)
    assert set().union(*tables) == set(o.__all__)


def loss(tree):
    """Of single layers: each leaf has a scale and a tilt of its own."""
    total = 0.0
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        tilt = np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype(np.float32)
        total = total + jnp.mean((leaf - tilt) ** 2) * (1 + i % 5)
    return total


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_string(path): np.asarray(leaf) for path, leaf in leaves}


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


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    check(METHODS[name], explicit=True)


@pytest.mark.parametrize("name", PLAIN)
def test_methods_that_look_at_no_leaf(name):
    check(PLAIN[name], explicit=False)


@pytest.mark.parametrize("name", SETS)
def test_sets(name):
    check(lambda **s: o.constrain(INNER["sgd"](), SETS[name](**s)), explicit=True)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(name, inner):
    explicit = name not in ("bucket_leaves", "reparameterize", "sania")
    check(lambda **s: WRAPPERS[name](INNER[inner](), **s), explicit)
